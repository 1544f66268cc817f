// Notes what is handed to any WebSocket. Imported before the client, which it does not touch.

export const sent = [];

const { send } = WebSocket.prototype;

WebSocket.prototype.send = function(data) {
    sent.push(data);
    send.call(this, data);
};

// The client draws the random part of its reconnect delay (0 to 10 s) from here. Without it a drop costs
// the fixed part alone: 1 s for the first attempt, 2 s for the next.
Math.random = () => 0;
