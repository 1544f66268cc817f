//! What is derived from a dump while it is read: its document, its rows, what the metrics want of it.
//!
//! Owns the way from a [`Document`] to the archive, the tables and the metrics. Pure but for the reader it is given.
//! Rules: our contract, section 6. Where the reference fills in the time of processing, the time of the dump's last
//! write stands, so that a dump that is processed twice gives the same bytes.

use std::io::BufRead;

use crate::extract::{self, ArchiveKeys, Document, ExtractError, ExtractLimits, KnownAgents, Options, Value};
use crate::metrics::FeatureMetrics;
use crate::privacy::Cutter;
use crate::records::{self, RecordsContext, Rows};

/// What has to be known of a dump before it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// Name of the dump.
    pub(super) name: &'a str,
    /// Its session id.
    pub(super) id: &'a str,
    /// Its last write, in ms since 1970.
    pub(super) written_ms: f64,
}

/// Reads a dump.
///
/// # Errors
/// [`ExtractError::Read`], and nothing else: what is wrong with the dump is in its document.
pub(super) fn read(
    agents: &mut KnownAgents,
    input: impl BufRead,
    known: Known<'_>,
    limits: ExtractLimits,
) -> Result<Document, ExtractError> {
    let options = Options {
        strict: false,
        client_id: known.name.to_owned(),
        dump_path: String::new(),
        now_ms: known.written_ms,
        limits,
    };
    extract::extract_knowing(agents, input, &options)
}

/// Says in the document where the dump is: as `<day>/<name>.gz` in the archive.
pub(super) fn locate(document: &mut Document, known: Known<'_>, day: impl std::fmt::Display, name: &str) {
    let dump_id = format!("{name}.gz");
    document.set_archive_keys(&ArchiveKeys {
        dump_path: &format!("{day}/{dump_id}"),
        dump_id: &dump_id,
        base_dump_id: known.id,
        fallback_ms: known.written_ms,
    });
}

/// The document of a dump that [`locate`] was called for, as it is published: with a `cutter`, without addresses.
///
/// # Errors
/// When a value refuses to be written.
pub(super) fn text(document: &Document, cutter: Option<&mut Cutter>) -> serde_json::Result<Vec<u8>> {
    let Some(cutter) = cutter else { return serde_json::to_vec(document) };
    let mut text = Vec::new();
    let mut writer = cutter.write_to(&mut text);
    serde_json::to_writer(&mut writer, document)?;
    writer.end();
    Ok(text)
}

/// The rows of a dump that [`locate`] was called for; with a `cutter`, without addresses.
///
/// Their ids are derived from the day, too: an id that is used again on another day is another dump.
pub(super) fn rows(
    document: &Document,
    known: Known<'_>,
    app_environment: &str,
    cutter: Option<&mut Cutter>,
) -> Vec<Rows> {
    let dump_path = document.metadata().get("dumpPath").and_then(Value::as_str).unwrap_or_default();
    let context = RecordsContext { app_environment, dump_id: dump_path, last_write_ms: known.written_ms };
    records::rows(document, &context, cutter)
}

/// What the metrics want to know of a client's dump.
pub(super) fn feature_metrics(document: &Document) -> Option<FeatureMetrics> {
    let metrics = document.metrics()?;
    let requests = &metrics.requests;
    let total = requests.total();
    Some(FeatureMetrics {
        stats_request_bytes: requests.stats.bytes,
        sdp_request_bytes: requests.sdp.bytes,
        ds_request_bytes: requests.speaker.bytes,
        sentiment_request_bytes: requests.sentiment.bytes,
        other_request_bytes: requests.other.bytes,
        session_duration_ms: metrics.session_duration_ms,
        total_processed_bytes: total.bytes,
        total_processed_count: total.count,
    })
}
