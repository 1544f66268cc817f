//! Feature extraction: dump in, document out.

/// The stats format of a client, from its user agent.
#[must_use]
pub fn stats_format(user_agent: &str) -> &'static str {
    if user_agent.contains("Chrome") { "chrome_standard" } else { "unsupported" }
}
