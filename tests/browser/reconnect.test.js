// The unmodified client through a bad network: every numbered entry once, in order, in one dump.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Browser } from './support/browser.js';
import { Proxy } from './support/proxy.js';
import { Server, until } from './support/server.js';

// Until the server resumes sessions, these cannot pass.
const skip = !process.env.BROWSER_TEST_PENDING?.includes('resume') && 'the server does not resume sessions yet';
const ENTRIES = 300;
const PER_SECOND = 100;

let browser;

before(async () => {
    browser = skip ? undefined : await Browser.launch();
});

after(() => browser?.close());

/** Traces entries while `trouble` happens to the network, leaves, and checks the archive. */
async function checkNothingLost(trouble) {
    const server = await Server.start({ LIMITS_IDLE_S: 10 });
    const proxy = await Proxy.start(server.port);

    try {
        const page = await browser.open(proxy.port, { pingInterval: 30_000 });

        await page.connected();
        const tracing = page.traceEntries(ENTRIES, PER_SECOND);

        await trouble({ page, proxy, server });
        await tracing;
        await until('the client is back', () => page.connected().then(() => true));
        await page.leave();
        const numbered = await page.numbered();
        const firstSent = linesByNumber(await page.sent());
        const { lines } = await server.onlyDump();

        assert.ok(proxy.accepted > 1, 'the network was never cut');
        assert.deepEqual(lines.map(numberOf), Array.from({ length: numbered }, (_, index) => index + 1));
        assert.deepEqual(lines, [ ...firstSent.values() ]);
        await page.close();
    } finally {
        proxy.close();
        await server.remove();
    }
}

/** What the client sent, by number; a replay must repeat it. */
function linesByNumber(frames) {
    const lines = new Map();

    for (const frame of frames) {
        const { type, data } = JSON.parse(frame);

        if (data !== undefined) {
            const line = type === 'identity' ? JSON.stringify(data) : data;
            const number = numberOf(line);

            assert.equal(lines.get(number) ?? line, line, 'a replay differs');
            lines.set(number, line);
        }
    }

    return new Map([ ...lines ].sort(([ a ], [ b ]) => a - b));
}

function numberOf(line) {
    return JSON.parse(line).at(-1);
}

/** Waits until the client has traced so many entries. */
function traced(page, count) {
    return until(`${count} entries`, async () => await page.numbered() >= count);
}

test('a reset in mid-stream', { skip }, () => checkNothingLost(async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.reset();
}));

test('several resets, the last ones while the client comes back', { skip }, () => checkNothingLost(async ({ page, proxy }) => {
    await traced(page, 50);
    proxy.reset();
    const before = proxy.accepted;

    await until('the client connects', () => proxy.accepted > before);
    proxy.reset();
    await until('the client connects', () => proxy.accepted > before + 1);
    await traced(page, 200);
    proxy.reset();
}));

test('a network that refuses at first', { skip }, () => checkNothingLost(async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.refuse();
    proxy.reset();
    const closed = (await page.closes()).length;

    await until('an attempt is refused', async () => (await page.closes()).length > closed);
    await proxy.accept();
}));

test('a network that stalls and is cut', { skip }, () => checkNothingLost(async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.stall();
    await traced(page, 200);
    proxy.reset();
    proxy.resume();
}));

test('a half close', { skip }, () => checkNothingLost(async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.halfClose();
}));

test('a restart of the server', { skip }, () => checkNothingLost(async ({ page, server }) => {
    await traced(page, 100);
    await server.end('SIGTERM');
    await server.run();
}));

test('a kill of the server', { skip }, () => checkNothingLost(async ({ page, server }) => {
    await traced(page, 100);
    await server.end('SIGKILL');
    await server.run();
}));
