//! Hosts over SSH (libssh2): a thread per connection, strict host keys, concurrent commands and streams.
mod certificate;
mod channel_forward;
mod connect;
mod denied;
mod event_loop;
mod exec;
mod host_key;
mod key_file;
mod known_hosts;
mod login;
mod request;
mod secrets;
mod session;
mod settings;
mod sudo;
mod wire;
mod worker;

#[cfg(test)]
mod tests;

pub use secrets::{Ask, Question, Secrets};
pub use session::SshHost;
pub use settings::SshSettings;
