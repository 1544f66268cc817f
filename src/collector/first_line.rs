//! The first line of a dump: what its client said about itself, and what this server knows of it.
//!
//! Rules: our contract, section 3.

use std::num::NonZeroU64;

use log::error;
use serde::Serialize;

use crate::auth::Claims;
use crate::client::ConnectionInfo;
use crate::dump::{AppendError, DumpStore};
use crate::logging::{member, value};
use crate::reactor::slots::SlotId;
use crate::session::{Beginning, Record, Session};
use crate::slabs::Slabs;

/// Creates the file of a session and writes its first line and what is gathered. Returns the bytes written.
pub(super) fn create_dump(
    dumps: &mut DumpStore,
    slabs: &Slabs,
    key: SlotId,
    session: &mut Session,
) -> Result<u64, AppendError> {
    let first_line = |part: u32, out: &mut Vec<u8>| {
        if let Record::Planned(beginning) = &session.record {
            write_first_line(beginning, session, part, out);
        }
    };
    let created = dumps.create(key, &session.id, first_line, slabs.slices(&session.lines));
    let dump = created?;
    let bytes = dump.size_bytes;
    session.record = Record::Written(dump);
    Ok(bytes)
}

/// Appends `["connectionInfo",null,{...},<clock>]`: the documented members and, when there is something to say, one
/// more, `server` (our contract, section 3).
fn write_first_line(beginning: &Beginning, session: &Session, part: u32, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Server<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        part: Option<u32>,
        #[serde(rename = "continuesFrom", skip_serializing_if = "Option::is_none")]
        continues_from: Option<NonZeroU64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        claims: Option<&'a Claims>,
    }
    #[derive(Serialize)]
    struct Info<'a> {
        #[serde(flatten)]
        info: &'a ConnectionInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<Server<'a>>,
    }
    let has_part = part > 0;
    let Beginning { info, started_ms, continues_from } = beginning;
    let has_more = has_part || continues_from.is_some() || info.claims.is_some();
    let server = has_more.then(|| Server {
        id: has_part.then(|| session.id.as_str()),
        part: has_part.then_some(part),
        continues_from: *continues_from,
        claims: info.claims.as_deref(),
    });
    let line = ("connectionInfo", (), Info { info, server }, started_ms);
    if let Err(failure) = serde_json::to_writer(&mut *out, &line) {
        // Writing plain strings and integers into memory has no way to fail.
        let conn = member("conn", session.last_connection);
        error!("dump.error{conn} session={} err={}", session.id, value(failure));
    }
    out.push(b'\n');
}
