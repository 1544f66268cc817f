//! Identity entries, and the metadata that follows from them.
//!
//! Rules: feature extraction 5.2, 10.1 (RTCSTATS), 11 (back ends).

use super::budget::Budget;
use super::problems::LineError;
use super::value::{Object, Value};

/// The members of an identity that reach the metadata; the others are not kept.
const MEMBERS: [&str; 13] = [
    "applicationName",
    "confName",
    "confID",
    "endpointId",
    "meetingUniqueId",
    "displayName",
    "sessionId",
    "userId",
    "deviceId",
    "isBreakoutRoom",
    "roomId",
    "parentStatsSessionId",
    "customerId",
];

/// Start of the name of a JaaS tenant.
const JAAS_PREFIX: &str = "vpaas-magic-cookie-";

/// The identities of a dump, merged.
#[derive(Debug, Default)]
pub(super) struct Identity {
    merged: Object,
    /// `deploymentInfo`, merged; `None` before the first identity.
    deployment: Option<Object>,
    /// The line that last set `confID`; named when that cannot be used.
    conference_url_line: u64,
}

/// What the metadata take from elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) client_id: &'a str,
    pub(super) dump_path: &'a str,
    pub(super) client_type: &'static str,
    pub(super) stats_format: &'static str,
}

impl Identity {
    /// Merges an identity; each member that it has replaces the one before, `null` too.
    ///
    /// # Errors
    ///
    /// When more would be kept than a dump may; the member is then left as it was.
    pub(super) fn merge(&mut self, data: &Value, line: u64, budget: &mut Budget) -> Result<(), LineError> {
        let deployment = self.deployment.get_or_insert_default();
        if let Some(info) = data.member("deploymentInfo").as_object() {
            for (name, value) in info.iter() {
                set_paid(deployment, name, value, budget)?;
            }
        }
        for name in MEMBERS {
            let value = data.member(name);
            if !value.is_absent() {
                set_paid(&mut self.merged, name, value, budget)?;
            }
        }
        if !data.member("confID").is_absent() {
            self.conference_url_line = line;
        }
        Ok(())
    }

    /// Takes the merged `deploymentInfo`; `None` without any identity.
    pub(super) fn take_deployment(&mut self) -> Option<Object> {
        self.deployment.take()
    }

    /// The metadata of an RTCSTATS dump, and the error that its conference URL is, with the line it came from.
    pub(super) fn metadata(&self, given: Given<'_>) -> (Object, Option<(u64, LineError)>) {
        let mut out = Object::default();
        out.set("app", self.application());
        out.set("clientId", Value::text(given.client_id));
        out.set("clientType", Value::text(given.client_type));
        out.set("conferenceId", self.member("confName"));
        out.set("conferenceUrl", self.member("confID"));
        out.set("dumpPath", Value::text(given.dump_path));
        out.set("endpointId", self.member("endpointId"));
        out.set("sessionId", self.member("meetingUniqueId"));
        out.set("userId", self.member("displayName"));
        out.set("ampSessionId", self.member("sessionId"));
        out.set("ampUserId", self.member("userId"));
        out.set("ampDeviceId", self.member("deviceId"));
        out.set("statsFormat", Value::text(given.stats_format));
        out.set("isBreakoutRoom", self.member("isBreakoutRoom"));
        out.set("breakoutRoomId", self.member("roomId"));
        out.set("parentStatsSessionId", self.member("parentStatsSessionId"));
        let (url, error) = match self.member("confID") {
            Value::Absent => (Box::default(), None),
            Value::Text(url) => (url, None),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                (Box::default(), Some((self.conference_url_line, LineError::BadConferenceUrl)))
            }
        };
        let tenant = Tenant::of(&url);
        let customer = self.member("customerId");
        out.set("tenant", Value::text(tenant.name));
        out.set("jaasMeetingFqn", Value::text(tenant.meeting));
        out.set("jaasClientId", if customer.is_truthy() { customer } else { Value::text(tenant.client_id) });
        out.set("isJaaSTenant", Value::Bool(tenant.is_jaas));
        (out, error)
    }

    /// The metadata of a back end's dump.
    pub(super) fn backend_metadata(&self, given: Given<'_>) -> Object {
        let mut out = Object::default();
        out.set("app", self.application());
        out.set("clientId", Value::text(given.client_id));
        out.set("clientType", Value::text(given.client_type));
        out.set("conferenceId", self.member("confName"));
        out.set("conferenceUrl", self.member("confID"));
        out.set("dumpPath", Value::text(given.dump_path));
        out.set("sessionId", self.member("meetingUniqueId"));
        out.set("userId", self.member("displayName"));
        out.set("statsFormat", Value::text(given.stats_format));
        out
    }

    /// The metadata of a dump without a usable first line.
    pub(super) fn no_metadata(given: Given<'_>) -> Object {
        let mut out = Object::default();
        out.set("dumpPath", Value::text(given.dump_path));
        out.set("clientId", Value::text(given.client_id));
        out
    }

    fn application(&self) -> Value {
        let name = self.member("applicationName");
        if name.is_absent() { Value::text("Undefined") } else { name }
    }

    fn member(&self, name: &str) -> Value {
        self.merged.get(name).cloned().unwrap_or_default()
    }
}

/// Sets a member, if what it adds can be paid for.
fn set_paid(object: &mut Object, name: &str, value: &Value, budget: &mut Budget) -> Result<(), LineError> {
    let known = object.get(name);
    let overhead = if known.is_some() { 0 } else { 64 + name.len() };
    let before = known.map_or(0, Value::heap_bytes);
    budget.take(overhead + value.heap_bytes())?;
    budget.give_back(before);
    object.set(name, value.clone());
    Ok(())
}

/// What the conference URL says of the tenant; ordinary tenants are not reported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tenant {
    name: String,
    meeting: String,
    client_id: String,
    is_jaas: bool,
}

impl Tenant {
    fn of(url: &str) -> Self {
        let mut parts = without_scheme(url).split('/').skip(1);
        let Some(name) = parts.next() else { return Self::default() };
        let Some(client_id) = name.strip_prefix(JAAS_PREFIX) else { return Self::default() };
        Self {
            name: name.to_owned(),
            meeting: normalised_path(std::iter::once(name).chain(parts)),
            client_id: client_id.to_owned(),
            is_jaas: true,
        }
    }
}

/// Cuts `scheme://` or `//` off the start.
fn without_scheme(url: &str) -> &str {
    let after_word = url.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let after_scheme = match after_word.strip_prefix(':') {
        Some(rest) if after_word.len() < url.len() => rest,
        Some(_) | None => url,
    };
    after_scheme.strip_prefix("//").or_else(|| url.strip_prefix("//")).unwrap_or(url)
}

/// Joins and normalises a relative POSIX path.
fn normalised_path<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut out: Vec<&str> = Vec::new();
    for part in parts {
        match part {
            "" | "." => {}
            ".." if out.last().is_some_and(|last| *last != "..") => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    if out.is_empty() { ".".to_owned() } else { out.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::json::Scanner;

    fn value(text: &str) -> Value {
        Value::read(&mut Scanner::new(text, 16)).unwrap()
    }

    const GIVEN: Given<'_> = Given { client_id: "c", dump_path: "p", client_type: "T", stats_format: "f" };

    #[test]
    fn tenants_come_from_the_second_part_of_the_url() {
        let cases = [
            ("https://8x8.vc/vpaas-magic-cookie-a/Room", "vpaas-magic-cookie-a", "vpaas-magic-cookie-a/Room"),
            ("8x8.vc/vpaas-magic-cookie-a/x//./y/../z/", "vpaas-magic-cookie-a", "vpaas-magic-cookie-a/x/z"),
            ("//8x8.vc/vpaas-magic-cookie-a", "vpaas-magic-cookie-a", "vpaas-magic-cookie-a"),
            ("://8x8.vc/vpaas-magic-cookie-a", "", ""),
            ("h/vpaas-magic-cookie-a/../../x?y#z", "vpaas-magic-cookie-a", "../x?y#z"),
            ("h/vpaas-magic-cookie-a/..", "vpaas-magic-cookie-a", "."),
            ("vpaas-magic-cookie-a/room", "", ""),
            ("https://meet.example/tenant/room", "", ""),
            ("a+b://h/vpaas-magic-cookie-a/r", "", ""),
            ("", "", ""),
        ];
        for (url, name, meeting) in cases {
            let tenant = Tenant::of(url);
            assert_eq!((&*tenant.name, &*tenant.meeting), (name, meeting), "{url}");
            assert_eq!(tenant.is_jaas, !name.is_empty());
        }
    }

    #[test]
    fn later_identities_replace_member_by_member() {
        let mut identity = Identity::default();
        let mut budget = Budget::default();
        for (line, data) in [
            r#"{"displayName":"x","confName":"room","deploymentInfo":{"shard":"s1","region":"eu"}}"#,
            r#"{"displayName":null,"applicationName":null,"deploymentInfo":{"shard":"s2"}}"#,
            r#"{"deploymentInfo":5}"#,
        ]
        .iter()
        .zip(1..)
        .map(|(data, line)| (line, data))
        {
            identity.merge(&value(data), line, &mut budget).unwrap();
        }
        let (metadata, error) = identity.metadata(GIVEN);
        assert_eq!(error, None);
        assert_eq!(
            serde_json::to_string(&metadata).unwrap(),
            r#"{"app":null,"clientId":"c","clientType":"T","conferenceId":"room","dumpPath":"p","userId":null,"statsFormat":"f","tenant":"","jaasMeetingFqn":"","jaasClientId":"","isJaaSTenant":false}"#
        );
        let deployment = identity.take_deployment().unwrap();
        assert_eq!(serde_json::to_string(&deployment).unwrap(), r#"{"shard":"s2","region":"eu"}"#);
    }

    #[test]
    fn a_conference_url_that_is_no_string_is_an_error() {
        for (data, bad) in
            [(r#"{"confID":null}"#, true), (r#"{"confID":5}"#, true), (r#"{"confID":""}"#, false)]
        {
            let mut identity = Identity::default();
            identity.merge(&value(data), 7, &mut Budget::default()).unwrap();
            let error = identity.metadata(GIVEN).1;
            assert_eq!(error, bad.then_some((7, LineError::BadConferenceUrl)), "{data}");
        }
    }
}
