//! Apache Mesos' v1 HTTP APIs: wire types (JSON), RecordIO, scheduler, executor and operator clients.
