"use strict";
// node node.js URL [MODULE]: play the seed with a module's WebSocket, or with Node's own.
const {playSeed} = require("./seed.js");
const [url, name] = process.argv.slice(2);
const Socket = name ? require(name) : globalThis.WebSocket;

playSeed(Socket, url).then(
  (code) => process.exit(code === 1000 ? 0 : 1),
  (error) => {
    console.error(error.message);
    process.exit(1);
  },
);
