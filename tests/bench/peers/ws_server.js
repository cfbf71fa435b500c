// Every message goes to all other connections, with Node's package ws.
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false });
server.on("connection", (socket) => {
  socket.on("message", (data, binary) => {
    for (const client of server.clients) if (client !== socket && client.readyState === 1) client.send(data, { binary });
  });
});
