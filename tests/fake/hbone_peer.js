// SPDX-License-Identifier: Apache-2.0
// An HBONE peer on Node's http2, written from the protocol and sharing no code with anything else here.
//
//   node hbone_peer.js server CERT KEY CA [PORT]             terminates CONNECT and dials the authority
//   node hbone_peer.js client CERT KEY CA LOCAL HOST AUTHORITY   127.0.0.1:LOCAL through HOST:15008 to AUTHORITY
//
// Prints "ready" when it listens. Half-close and resets are carried both ways.
'use strict';
const fs = require('fs');
const http2 = require('http2');
const net = require('net');

const [role, cert, key, ca, ...rest] = process.argv.slice(2);
const tls = {
  cert: fs.readFileSync(cert), key: fs.readFileSync(key), ca: fs.readFileSync(ca),
  ALPNProtocols: ['h2'], minVersion: 'TLSv1.3',
  settings: { initialWindowSize: 1 << 20, enablePush: false },
};
const { NGHTTP2_NO_ERROR: NO_ERROR } = http2.constants;

// Bytes both ways; an end of one side ends the other's writing half, an error resets the other side.
function join(stream, socket) {
  let failed = false;
  socket.setNoDelay(true);
  stream.pipe(socket);
  socket.pipe(stream);
  socket.on('error', () => {
    failed = true;
    stream.destroy(new Error("reset by the application")); // RST_STREAM; close() would say END_STREAM first
  });
  stream.on('error', () => {});
  stream.on('close', () => {
    const clean = stream.rstCode === NO_ERROR && !stream.aborted;
    if (!failed && !socket.destroyed && !clean) socket.resetAndDestroy();
  });
}

function server(port) {
  const s = http2.createSecureServer({ ...tls, requestCert: true, rejectUnauthorized: true });
  s.on('session', (session) => {
    session.setLocalWindowSize(16 << 20);
    session.on('error', () => {});
  });
  s.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    if (headers[':method'] !== 'CONNECT') {
      stream.respond({ ':status': 405 }, { endStream: true });
      return;
    }
    const m = /^\[?([^\]]*?)\]?:(\d+)$/.exec(headers[':authority']);
    const app = net.connect({ host: m[1], port: Number(m[2]), allowHalfOpen: true });
    app.once('error', () => {
      if (!stream.headersSent && !stream.destroyed) stream.respond({ ':status': 503 }, { endStream: true });
    });
    app.once('connect', () => {
      if (stream.destroyed) {
        app.resetAndDestroy();
        return;
      }
      stream.respond({ ':status': 200 });
      join(stream, app);
    });
  });
  s.listen(port, '::', () => console.log('ready'));
}

function client(local, host, authority) {
  let session = null;
  const connected = () => {
    if (session && !session.closed && !session.destroyed) return session;
    session = http2.connect(`https://${host.includes(':') ? `[${host}]` : host}:15008`,
      { ...tls, checkServerIdentity: () => undefined });
    session.on('connect', () => session.setLocalWindowSize(16 << 20));
    session.on('error', (e) => console.error(e.message));
    return session;
  };
  const listener = net.createServer({ allowHalfOpen: true }, (socket) => {
    const stream = connected().request({ ':method': 'CONNECT', ':authority': authority });
    socket.pause();
    stream.on('error', () => {});
    stream.on('response', (headers) => {
      console.log(`status ${headers[':status']}`);
      if (headers[':status'] !== 200) socket.resetAndDestroy();
    });
    join(stream, socket);
  });
  listener.listen(Number(local), '127.0.0.1', () => console.log('ready'));
}

if (role === 'server') server(Number(rest[0] || 15008));
else client(...rest);
