//! Feature extraction: dump in, document out.
