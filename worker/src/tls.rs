//! The cryptography of every HTTP client in this process, which reqwest wants to be told before the first one is made.

/// Chooses ring, once.
pub(crate) fn install() {
    // Whoever was first has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
