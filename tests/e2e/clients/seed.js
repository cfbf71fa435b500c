"use strict";
// The seed's requests, played through the standard WebSocket interface. Whatever arrives is told, as it came, to the
// topic "transcript" by the client itself at the end, so that a browser needs no other way to say it.

function playSeed(Socket, url) {
  return new Promise((resolve, reject) => {
    const live = new Socket(url);
    const received = [];
    let told = false;
    const requests = [
      {method: "list-topic"},
      {method: "create-topic", attributes: {name: "test"}},
      {method: "subscribe", attributes: {topic: "user_account"}},
      {method: "unsubscribe", attributes: {topic: "user_account"}},
      {method: "subscribe", attributes: {topic: "user_account", filters: {EventType: "update", version: "2"}}},
      {method: "subscribe", type: "test", payload: {}},
      {method: "subscribe", attributes: {topic: "orders"}},
      {method: "new-message", attributes: {topic: "test", message: {hello: "world"}}},
      {method: "new-message", attributes: {topic: "stage", message: "ready"}},
    ];
    live.onerror = () => reject(new Error("the connection failed"));
    live.onclose = (event) => resolve(event.code);
    live.onopen = () => requests.forEach((request) => live.send(JSON.stringify(request)));
    live.onmessage = ({data}) => {
      received.push(data);
      const {EventType, ObjectType} = JSON.parse(data);
      if (ObjectType === "orders" && EventType === "delete") {
        live.send(JSON.stringify({method: "destroy-topic", attributes: {name: "test"}}));
      } else if (ObjectType === "destroy-topic") {
        told = true;
        live.send(JSON.stringify({method: "new-message", attributes: {topic: "transcript", message: received}}));
      } else if (ObjectType === "new-message" && told) {
        live.close(1000);
      }
    };
  });
}

if (typeof module !== "undefined") {
  module.exports = {playSeed};
}
