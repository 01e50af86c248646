//! Which cipher a connection gets.
use ssh2::MethodType;

use super::super::connect::{Abort, Given, connect};
use super::Server;

#[test]
fn aes_gcm_is_preferred_and_a_server_without_it_is_used_all_the_same() {
    for (more, expected) in [
        ("", "aes128-gcm@openssh.com"),
        ("Ciphers chacha20-poly1305@openssh.com", "chacha20-poly1305@openssh.com"),
        ("Ciphers aes256-ctr", "aes256-ctr"),
    ] {
        let server = Server::configured(&["ed25519"], more);
        let session = connect(&server.settings(), &Given::default(), &Abort::default()).ok().unwrap().session;
        for direction in [MethodType::CryptCs, MethodType::CryptSc] {
            assert_eq!(session.methods(direction), Some(expected), "{more}");
        }
    }
}
