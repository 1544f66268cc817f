// Headless Chromium, and the page served on loopback.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

import { until } from './server.js';

const PAGE = new URL('../page/', import.meta.url);

const ARGUMENTS = [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
    // A camera and a microphone that need nobody's consent.
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
    // Both ends of the call are on this machine, which may have no other interface than loopback.
    '--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns',
    '--autoplay-policy=no-user-gesture-required'
];

/** A browser and a web server for the page. */
export class Browser {
    static async launch() {
        const browser = new Browser();
        const bundle = await build({
            entryPoints: [ new URL('main.js', PAGE).pathname ],
            bundle: true,
            write: false,
            // The client imports a folder of this package, which its present version exports file by file only.
            alias: { '@jitsi/js-utils/browser-detection': '@jitsi/js-utils/browser-detection/index.js' }
        });
        const files = {
            '/': [ 'text/html', await readFile(new URL('index.html', PAGE)) ],
            '/bundle.js': [ 'text/javascript', bundle.outputFiles[0].contents ]
        };

        browser.web = createServer((request, response) => {
            const [ type, body ] = files[request.url] ?? [ 'text/plain', '' ];

            response.writeHead(files[request.url] ? 200 : 404, { 'content-type': `${type}; charset=utf-8` });
            response.end(body);
        });
        await new Promise(resolve => {
            browser.web.listen(0, '127.0.0.1', resolve);
        });
        browser.chromium = await chromium.launch({
            executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
            args: ARGUMENTS
        });

        return browser;
    }

    /** A fresh page whose client connects to `port`. */
    async open(port, options = {}) {
        const context = await this.chromium.newContext();
        const tab = await context.newPage();

        tab.on('pageerror', error => console.error('in the page:', error));
        tab.on('console', message => message.type() === 'error' && console.error('in the page:', message.text()));
        await tab.goto(`http://127.0.0.1:${this.web.address().port}/`);
        await tab.evaluate(given => window.page.start(given), { endpoint: `ws://127.0.0.1:${port}`, ...options });

        return new Page(tab);
    }

    async close() {
        await this.chromium.close();
        this.web.close();
        this.web.closeAllConnections();
    }
}

/** The functions of `page/main.js`, called from here. */
class Page {
    constructor(tab) {
        this.tab = tab;
        for (const name of [ 'call', 'observe', 'traceEntries', 'leave', 'isConnected', 'sent', 'closes', 'numbered' ]) {
            this[name] = (...given) =>
                tab.evaluate(([ called, args ]) => window.page[called](...args), [ name, given ]);
        }
    }

    /** Waits until the client's socket is open, as it sees it. */
    connected() {
        return until('the client is connected', () => this.isConnected());
    }

    /** Leaves and waits until the socket is closed. */
    async left() {
        await this.leave();
        await until('the client is closed', async () => (await this.closes()).includes(3001));
    }

    close() {
        return this.tab.context().close();
    }
}

/** The lines that the frames which a client has sent must leave in a dump. */
export function linesOf(frames) {
    return frames
        .map(frame => JSON.parse(frame))
        .filter(request => request.data !== undefined)
        .map(request => request.type === 'identity' ? JSON.stringify(request.data) : request.data);
}
