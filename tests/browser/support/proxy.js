// A TCP proxy that treats connections as bad networks do: cut, stalled, half closed, refused.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Proxy {
    /** Forwards to `port` on loopback. */
    static async start(port) {
        const proxy = new Proxy();

        proxy.target = port;
        proxy.pairs = new Set();
        proxy.accepted = 0;
        proxy.stalled = false;
        proxy.port = 0;
        await proxy.accept();

        return proxy;
    }

    /** Listens, again on the same port after `refuse`. */
    async accept() {
        this.listener = createServer({ allowHalfOpen: true }, client => this.#forward(client));
        this.listener.listen(this.port, '127.0.0.1');
        await once(this.listener, 'listening');
        this.port = this.listener.address().port;
    }

    /** Refuses new connections; open ones go on. */
    refuse() {
        this.listener.close();
    }

    /** Resets all open connections in both directions. */
    reset() {
        for (const { client, server } of this.pairs) {
            client.resetAndDestroy();
            server.resetAndDestroy();
        }
        this.pairs.clear();
    }

    /** How many connections are open. One that was reset is not, whatever its client knows of it by now. */
    get open() {
        return this.pairs.size;
    }

    /** Nothing is forwarded any more, and nobody is told. */
    stall() {
        this.stalled = true;
        this.pairs.forEach(pair => pair.pause());
    }

    /** Forwards again what was held back. */
    resume() {
        this.stalled = false;
        this.pairs.forEach(pair => pair.resume());
    }

    /** Ends the client's direction towards the server; the other one stays open. */
    halfClose() {
        this.pairs.forEach(({ server }) => server.end());
    }

    close() {
        this.reset();
        this.listener.close();
    }

    #forward(client) {
        const server = connect({ port: this.target, host: '127.0.0.1', allowHalfOpen: true });
        const pair = {
            client,
            server,
            pause: () => [ client, server ].forEach(socket => socket.pause()),
            resume: () => [ client, server ].forEach(socket => socket.resume())
        };

        this.accepted++;
        this.pairs.add(pair);
        for (const [ from, to ] of [ [ client, server ], [ server, client ] ]) {
            from.setNoDelay(true);
            from.on('data', chunk => {
                // What is not taken at once is held by the sender's side, as a real path would.
                if (!to.destroyed && !to.writableEnded && !to.write(chunk)) {
                    from.pause();
                }
            });
            to.on('drain', () => this.stalled || from.resume());
            from.on('end', () => to.end());
            // A reset on one side is one on the other.
            from.on('error', () => to.resetAndDestroy());
            from.on('close', () => this.pairs.delete(pair));
        }
        if (this.stalled) {
            pair.pause();
        }
    }
}
