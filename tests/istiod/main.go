// SPDX-License-Identifier: Apache-2.0

// Istiod in one process, without Kubernetes: its own server, as the release has it, over an API in memory whose objects
// come from YAML files. It serves xDS and the certificate service over TLS.
//
//	istiod -listen 10.71.0.1:15012 -ca FOLDER OBJECTS
//
// OBJECTS is a file or a folder of files, read again for each line on stdin; the answer is one line on stdout, "applied
// ..." or "refused: ..." (then nothing has changed). "ready ADDRESS" comes first. It ends at the end of stdin; logs go
// to stderr. FOLDER holds root-cert.pem, cert-chain.pem, ca-cert.pem and ca-key.pem, so that another istiod signs with
// the same CA.
//
// Whoever calls is authenticated as in a cluster, by a review of its bearer token. The API in memory takes a token for
// valid that names a pod, "NAMESPACE/NAME", and answers with that pod's service account: so istiod's own checks of who
// may ask for whose certificate (the ztunnel of the node where such a pod runs) are in force.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"istio.io/istio/pilot/pkg/bootstrap"
	"istio.io/istio/pkg/config/constants"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/log"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:15012", "address of xDS and of the certificate service")
	ca := flag.String("ca", "", "folder of the CA's certificates and key")
	debug := flag.String("debug", "127.0.0.1:0", "address of istiod's /debug pages and /ready")
	flag.Parse()
	if flag.NArg() != 1 || *ca == "" {
		fmt.Fprintln(os.Stderr, "istiod: wanted: -ca FOLDER OBJECTS; -help lists the rest")
		os.Exit(2)
	}
	host, _, err := net.SplitHostPort(*listen)
	if err != nil {
		fail(fmt.Errorf("-listen: %w", err))
	}
	beginWith(settings(host, *ca))
	if err := serve(*listen, *debug, flag.Arg(0)); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "istiod: %v\n", err)
	os.Exit(1)
}

// settings are istiod's, for ambient and without what needs a cluster: nobody competes for leadership, there are no
// webhooks, and nobody reads what would be written back. Those that the caller has set win.
func settings(host, ca string) map[string]string {
	return map[string]string{
		"PILOT_ENABLE_AMBIENT":                             "true",
		"CA_TRUSTED_NODE_ACCOUNTS":                         "istio-system/ztunnel",
		"ROOT_CA_DIR":                                      ca,
		"ISTIOD_CUSTOM_HOST":                               host,
		"ENABLE_LEADER_ELECTION":                           "false",
		"VALIDATION_WEBHOOK_CONFIG_NAME":                   "",
		"AMBIENT_ENABLE_STATUS":                            "false",
		"PILOT_ENABLE_GATEWAY_API_STATUS":                  "false",
		"PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER":   "false",
		"PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER": "false",
		"PILOT_ENABLE_IP_AUTOALLOCATE":                     "false",
	}
}

// beginWith starts this program anew with the variables, since istiod reads them before main runs.
func beginWith(variables map[string]string) {
	const again = "ISTIOD_TEST_SETTINGS"
	if os.Getenv(again) != "" {
		return
	}
	os.Setenv(again, "done")
	for name, value := range variables {
		if _, set := os.LookupEnv(name); !set {
			os.Setenv(name, value)
		}
	}
	fail(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

func serve(listen, debug, path string) error {
	logs := log.DefaultOptions()
	logs.OutputPaths = []string{"stderr"}
	if err := log.Configure(logs); err != nil {
		return err
	}
	client := kube.NewFakeClient()
	cluster, err := newCluster(client, path)
	if err != nil {
		return err
	}
	if _, err := cluster.apply(); err != nil {
		return err
	}
	args := bootstrap.NewPilotArgs(func(p *bootstrap.PilotArgs) {
		p.Namespace = constants.IstioSystemNamespace
		p.ServerOptions.HTTPAddr = debug
		p.ServerOptions.SecureGRPCAddr = listen
		p.RegistryOptions.Registries = []string{"Kubernetes"}
		p.RegistryOptions.KubeOptions.DomainSuffix = constants.DefaultClusterLocalDomain
		p.RegistryOptions.KubeOptions.ClusterID = constants.DefaultClusterName
		p.ShutdownDuration = time.Second
	})
	server, err := bootstrap.NewServer(args, with(client))
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	if err := server.Start(stop); err != nil {
		return err
	}
	fmt.Printf("ready %s\n", listen)
	err = answer(cluster)
	close(stop)
	return err
}

// with hands the server its client in the field that istiod's own tests set; there is no exported way.
func with(client kube.Client) func(*bootstrap.Server) {
	return func(s *bootstrap.Server) {
		field := reflect.ValueOf(s).Elem().FieldByName("kubeClient")
		reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(client))
	}
}

// answer reads the objects again for each line, until stdin ends.
func answer(c *cluster) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		done, err := c.apply()
		if err != nil {
			done = "refused: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(done)
	}
	return lines.Err()
}
