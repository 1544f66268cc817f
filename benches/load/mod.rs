//! The parts of the end-to-end bench: what is sent, who sends it, who receives it, and what that costs.

pub(crate) mod fleet;
#[path = "../../tests/support/frames.rs"]
#[allow(dead_code, reason = "shared with the tests, which also send what no client should")]
pub(crate) mod frames;
pub(crate) mod goals;
pub(crate) mod mix;
pub(crate) mod process;
pub(crate) mod report;
#[path = "../../tests/support/rng.rs"]
#[allow(dead_code, reason = "shared with the tests")]
pub(crate) mod rng;
pub(crate) mod scenario;
pub(crate) mod sink;
pub(crate) mod verify;
pub(crate) mod yardstick;
