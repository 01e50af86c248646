//! Hosts over SSH (libssh2): a thread per connection, strict host keys, commands and streams side by side.
mod connect;
mod exec;
mod known_hosts;
mod pump;
mod session;
mod settings;
mod worker;

#[cfg(test)]
mod tests;

pub use session::SshHost;
pub use settings::SshSettings;
