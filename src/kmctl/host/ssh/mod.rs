//! Hosts over SSH (libssh2): a thread per connection, strict host keys, concurrent commands and streams.
mod certificate;
mod connect;
mod denied;
mod exec;
mod key_file;
mod known_hosts;
mod login;
mod channel_forward;
mod request;
mod secrets;
mod session;
mod settings;
mod sudo;
mod host_key;
mod event_loop;
mod wire;
mod worker;

#[cfg(test)]
mod tests;

pub use secrets::{Ask, Question, Secrets};
pub use session::SshHost;
pub use settings::SshSettings;
