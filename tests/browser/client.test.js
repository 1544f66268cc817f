// The unmodified npm package in a real browser, with real peer connections, against the real server.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Browser, linesOf } from './support/browser.js';
import { Server } from './support/server.js';

const CALL_MS = 6000;

let browser, server;

// What the first test leaves for the second: the archived dump, and what the page itself saw at the end of the call.
let dump, seen;

before(async () => {
    browser = await Browser.launch();
    server = await Server.start();
});

after(async () => {
    await browser?.close();
    await server?.remove();
});

test('every entry of the client is an archived line, in order, byte for byte', async () => {
    const page = await browser.open(server.port);

    await page.call(CALL_MS);
    seen = await page.observe();
    await page.left();
    const lines = linesOf(await page.sent());

    await page.close();
    const kinds = new Set(lines.map(line => JSON.parse(line)[0]));

    // A test of nothing proves nothing: there was a call, and its statistics were traced.
    for (const kind of [ 'identity', 'create', 'setRemoteDescription', 'ontrack', 'getstats' ]) {
        assert.ok(kinds.has(kind), `no ${kind} among ${[ ...kinds ]}`);
    }
    assert.ok(lines.filter(line => line.startsWith('["getstats"')).length >= 2 * CALL_MS / 1000);

    dump = await server.onlyDump();
    assert.deepEqual(dump.lines, lines);
});

test('the features are what the page saw', () => {
    const { dumpMetadata, features } = dump.document;

    assert.equal(dumpMetadata.clientType, 'RTCSTATS_CLIENT');
    const aggregates = Object.values(features.aggregates);

    assert.equal(aggregates.length, seen.length);
    aggregates.forEach((aggregate, index) => {
        const reports = seen[index];
        const byId = id => reports.find(report => report.id === id) ?? {};
        const total = (type, field) => reports
            .filter(report => report.type === type)
            .reduce((sum, report) => sum + report[field], 0);
        const { trackAggregates, transportAggregates, candidatePairData, inboundVideoExperience } = aggregate;

        // The last poll of the client was up to half a second before the page looked.
        within(trackAggregates.totalPacketsReceived, total('inbound-rtp', 'packetsReceived'), 0.25);
        // By the rules of the features, what the other end says that it sent is a sender's track, too.
        within(
            trackAggregates.totalPacketsSent,
            total('outbound-rtp', 'packetsSent') + total('remote-outbound-rtp', 'packetsSent'),
            0.25
        );
        assert.equal(trackAggregates.totalReceivedPacketsLost, total('inbound-rtp', 'packetsLost'));

        const pair = byId(reports.find(report => report.type === 'transport').selectedCandidatePairId);
        const [ local, remote ] = [ byId(pair.localCandidateId), byId(pair.remoteCandidateId) ];

        assert.equal(candidatePairData.id, pair.id);
        assert.equal(candidatePairData.localCandidateType, local.candidateType);
        assert.equal(candidatePairData.localPort, local.port);
        assert.equal(candidatePairData.remotePort, remote.port);
        assert.equal(candidatePairData.localProtocol, local.protocol);
        assert.equal(aggregate.usesRelay, false);
        assert.equal(aggregate.connectionFailed, false);
        assert.ok(aggregate.pcSessionDurationMs >= CALL_MS / 2, `${aggregate.pcSessionDurationMs}`);

        // Both ends are on this machine: a round trip takes milliseconds.
        const meanRtt = pair.totalRoundTripTime / pair.responsesReceived;

        assert.ok(Math.abs(transportAggregates.meanRtt - meanRtt) < 0.05, `${transportAggregates.meanRtt}, ${meanRtt}`);

        const video = reports.find(report => report.type === 'inbound-rtp' && report.kind === 'video');
        const { upperBoundAggregates, lowerBoundAggregates } = inboundVideoExperience;

        assert.ok(lowerBoundAggregates.meanFrameHeight <= upperBoundAggregates.meanFrameHeight);
        assert.ok(upperBoundAggregates.meanFrameHeight <= 360 && upperBoundAggregates.meanFrameHeight > 0);
        const meanFps = video.framesDecoded / (CALL_MS / 1000);

        within(upperBoundAggregates.meanFramesPerSecond, meanFps, 0.5);
    });
});

/** Asserts that `value` is near `reference`, as a share of it. */
function within(value, reference, share) {
    assert.ok(Math.abs(value - reference) <= share * reference, `${value} is not near ${reference}`);
}
