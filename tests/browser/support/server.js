// The real server in a temporary folder, and its archive.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';

const BINARY = process.env.TEST_SERVER_BINARY
    ?? new URL('../../../target/debug/rtcstats-server', import.meta.url).pathname;
const DEADLINE_MS = 30_000;

/** Waits until `look` finds something. */
export async function until(what, look) {
    const deadline = Date.now() + DEADLINE_MS;

    for (;;) {
        const found = await look();

        if (found) {
            return found;
        }
        if (Date.now() > deadline) {
            throw new Error(`not until the deadline: ${what}`);
        }
        await pause(25);
    }
}

export class Server {
    /** Starts a server in a folder of its own; `settings` are environment variables without their prefix. */
    static async start(settings = {}) {
        const server = new Server();

        server.settings = settings;
        server.folder = await mkdtemp(join(tmpdir(), 'rtcstats-browser-'));
        server.port = 0;
        await server.run();

        return server;
    }

    /** Runs the binary; after the first time on the port that it got then. */
    async run() {
        const fixed = {
            SERVER_ADDRESS: '127.0.0.1', SERVER_PORT: this.port,
            SERVER_METRICS_ADDRESS: '127.0.0.1', SERVER_METRICS_PORT: 0,
            DUMP_MIN_FREE_BYTES: 0
        };
        const env = { ...process.env };

        for (const [ name, value ] of Object.entries({ ...fixed, ...this.settings })) {
            env[`RTCSTATS_${name}`] = String(value);
        }
        this.log = [];
        this.process = spawn(BINARY, { cwd: this.folder, env, stdio: [ 'ignore', 'ignore', 'pipe' ] });
        createInterface({ input: this.process.stderr }).on('line', line => this.log.push(line));
        const ready = await until('the server is ready', () => {
            if (this.process.exitCode !== null) {
                throw new Error(`the server did not start:\n${this.log.join('\n')}`);
            }

            return this.log.find(line => line.includes('server.ready'));
        });

        this.port = Number(/ingest=\S*:(\d+)/.exec(ready)[1]);
    }

    async end(signal) {
        if (this.process.exitCode === null && this.process.signalCode === null) {
            const exit = once(this.process, 'exit');

            this.process.kill(signal);
            await exit;
        }
    }

    /** Stops the server and removes its folder. */
    async remove() {
        await this.end('SIGKILL');
        await rm(this.folder, { recursive: true });
    }

    /** The archived dumps of all sessions: `{ name, lines, document }`, the first line left out. */
    async dumps() {
        const archive = join(this.folder, 'archive');
        const dumps = [];

        for (const day of await readdir(archive).catch(() => [])) {
            for (const file of await readdir(join(archive, day))) {
                if (file.endsWith('.gz')) {
                    const path = join(archive, day, file);
                    const text = gunzipSync(await readFile(path)).toString();

                    dumps.push({
                        name: file.slice(0, -3),
                        lines: text.split('\n').slice(1, -1),
                        document: JSON.parse(await readFile(path.replace(/gz$/, 'json'), 'utf8'))
                    });
                }
            }
        }

        return dumps;
    }

    /** Waits for the only dump that there may be. */
    async onlyDump() {
        const dumps = await until('a dump is archived', async () => {
            const found = await this.dumps();

            return found.length > 0 && found;
        });

        if (dumps.length !== 1) {
            throw new Error(`${dumps.length} dumps instead of one: ${dumps.map(dump => dump.name)}`);
        }

        return dumps[0];
    }
}
