//! Putting bytes into a URL: percent-encoding and base64url, written here so that the server's own are not trusted.

/// Percent-encodes everything but unreserved characters; good for a query's value and for a path's segment.
pub fn percent(bytes: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    for byte in bytes.as_ref() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(char::from(*byte)),
            // A dot too: a client may encode it, and the server must not see a dot segment in it.
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// The base64url alphabet of RFC 4648.
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    for group in bytes.as_ref().chunks(3) {
        let word = group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            let bits = word >> (18 - 6 * digit) & 63;
            out.push(char::from(BASE64URL[bits as usize]));
        }
    }
    out
}

/// base64url with its padding.
pub fn base64url_padded(bytes: impl AsRef<[u8]>) -> String {
    let mut out = base64url(bytes);
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}
