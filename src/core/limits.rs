//! The limits of what refwatch accepts from the service.

/// The longest page token that is sent back, in bytes. AWS's tokens have a few hundred. The token is part of a URI, where an escape
/// triples it; HTTP servers commonly accept URIs of 8 to 64 KiB, and the SDK panics above 64 KiB.
pub const PAGE_TOKEN_BYTES_MAX: usize = 8 * 1024;
