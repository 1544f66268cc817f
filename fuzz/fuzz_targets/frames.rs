//! Frame decoder against tungstenite, over the same bytes in pieces of random sizes.
//!
//! Input: a byte that says how many bytes of piece sizes follow, these, and the stream.
#![no_main]

#[path = "../../tests/frames/mod.rs"]
mod frames;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((count, rest)) = data.split_first() else { return };
    let (sizes, stream) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let pieces: Vec<usize> = sizes.iter().map(|size| usize::from(*size)).collect();
    frames::agree(stream, &pieces);
});
