//! Certificate authorities, leaf certificates and keys: ECDSA P-256 throughout.
