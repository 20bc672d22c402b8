// SPDX-License-Identifier: Apache-2.0

package main

// The API in memory: objects from files, and the review of tokens.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/fake"
	metadata "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/testing"
	gateway "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned/fake"
	"sigs.k8s.io/gateway-api/pkg/consts"
	"sigs.k8s.io/yaml"

	istio "istio.io/client-go/pkg/clientset/versioned/fake"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/gvr"
	"istio.io/istio/pkg/config/schema/resource"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/security/pkg/k8s/tokenreview"
)

// maxFile bounds a file of objects; 50,000 pods fit.
const maxFile = 256 << 20

type key struct {
	resource        schema.GroupVersionResource
	namespace, name string
}

func (k key) String() string {
	return fmt.Sprintf("%s %s/%s", k.resource.Resource, k.namespace, k.name)
}

// object is what a file says, and its text to tell a change by.
type object struct {
	parsed runtime.Object
	text   string
}

type cluster struct {
	path    string
	kube    testing.ObjectTracker
	istio   testing.ObjectTracker
	gateway testing.ObjectTracker
	objects map[key]object
	version int
}

// newCluster is empty but for the kinds that a cluster with Istio knows.
func newCluster(client kube.Client, path string) (*cluster, error) {
	clients := client.Kube().(*fake.Clientset)
	c := &cluster{
		path:    path,
		kube:    clients.Tracker(),
		istio:   client.Istio().(*istio.Clientset).Tracker(),
		gateway: client.GatewayAPI().(*gateway.Clientset).Tracker(),
		objects: map[key]object{},
	}
	clients.PrependReactor("create", "tokenreviews", c.review)
	all := client.Metadata().(*metadata.FakeMetadataClient)
	kinds := all.Resource(gvr.CustomResourceDefinition).(metadata.MetadataClient)
	for _, s := range collections.All.All() {
		if c.tracker(s) == nil || s.IsBuiltin() {
			continue
		}
		crd := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name:        s.Plural() + "." + s.Group(),
			Annotations: map[string]string{consts.BundleVersionAnnotation: consts.BundleVersion},
		}}
		if _, err := kinds.CreateFake(crd, metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("%s: %w", crd.Name, err)
		}
	}
	return c, nil
}

// tracker is the part of the API that has a kind; nil: none has.
func (c *cluster) tracker(s resource.Schema) testing.ObjectTracker {
	switch {
	case s.IsBuiltin():
		return c.kube
	case strings.HasSuffix(s.Group(), ".istio.io"):
		return c.istio
	case s.Group() == "gateway.networking.k8s.io":
		return c.gateway
	}
	return nil
}

func (c *cluster) trackerOf(k key) testing.ObjectTracker {
	s, _ := collections.All.FindByGroupVersionResource(k.resource)
	return c.tracker(s)
}

// apply makes the API equal to the files, and says how many objects were added, changed and removed.
func (c *cluster) apply() (string, error) {
	want, err := c.read()
	if err != nil {
		return "", err
	}
	var added, changed, removed int
	for k, o := range want {
		old, is := c.objects[k]
		if is && old.text == o.text {
			continue
		}
		c.version++
		accessor, _ := meta.Accessor(o.parsed)
		accessor.SetResourceVersion(strconv.Itoa(c.version))
		if is {
			changed++
			err = errors.Join(err, c.trackerOf(k).Update(k.resource, o.parsed, k.namespace))
		} else {
			added++
			err = errors.Join(err, c.trackerOf(k).Create(k.resource, o.parsed, k.namespace))
		}
	}
	for k := range c.objects {
		if _, stays := want[k]; !stays {
			removed++
			err = errors.Join(err, c.trackerOf(k).Delete(k.resource, k.namespace, k.name))
		}
	}
	c.objects = want
	if err != nil {
		return "", fmt.Errorf("half done: %w", err)
	}
	return fmt.Sprintf("applied %d added %d changed %d removed", added, changed, removed), nil
}

// read parses all files before anything is changed.
func (c *cluster) read() (map[key]object, error) {
	files := []string{c.path}
	if info, err := os.Stat(c.path); err != nil {
		return nil, err
	} else if info.IsDir() {
		files, _ = filepath.Glob(filepath.Join(c.path, "*.yaml"))
	}
	objects := map[key]object{}
	for _, name := range files {
		if err := readFile(name, objects); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return objects, nil
}

func readFile(name string, objects map[key]object) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxFile {
		return errors.Join(err, fmt.Errorf("has more than %d bytes", maxFile))
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(f))
	for number := 1; ; number++ {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = readObject(text, objects)
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", number, err)
		}
	}
}

// readObject takes one document; an empty one is none.
func readObject(text []byte, objects map[key]object) error {
	text, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	if string(text) == "null" {
		return nil
	}
	parsed, kind, err := kube.IstioCodec.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return err
	}
	s, known := collections.All.FindByGroupVersionKind(config.FromKubernetesGVK(*kind))
	if !known {
		return fmt.Errorf("%s: istiod does not watch this version of this kind", kind)
	}
	accessor, err := meta.Accessor(parsed)
	if err != nil {
		return err
	}
	if !s.IsClusterScoped() && accessor.GetNamespace() == "" {
		accessor.SetNamespace(core.NamespaceDefault)
	}
	k := key{s.GroupVersionResource(), accessor.GetNamespace(), accessor.GetName()}
	if _, twice := objects[k]; twice || k.name == "" {
		return fmt.Errorf("%s: named twice, or has no name", k)
	}
	objects[k] = object{parsed, string(text)}
	return nil
}

// review answers who the bearer of a token is: the pod "NAMESPACE/NAME" that it names.
func (c *cluster) review(action testing.Action) (bool, runtime.Object, error) {
	answer := action.(testing.CreateAction).GetObject().DeepCopyObject().(*authentication.TokenReview)
	namespace, name, _ := strings.Cut(answer.Spec.Token, "/")
	found, err := c.kube.Get(gvr.Pod, namespace, name)
	if err != nil {
		answer.Status.Error = "no such pod"
		return true, answer, nil
	}
	pod := found.(*core.Pod)
	answer.Status = authentication.TokenReviewStatus{
		Authenticated: true,
		Audiences:     answer.Spec.Audiences,
		User: authentication.UserInfo{
			Username: "system:serviceaccount:" + namespace + ":" + pod.Spec.ServiceAccountName,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace},
			Extra: map[string]authentication.ExtraValue{
				tokenreview.PodNameKey: {name},
				tokenreview.PodUIDKey:  {string(pod.UID)},
			},
		},
	}
	return true, answer, nil
}
