//! SSH's wire forms: numbers, and strings prefixed with their length (RFC 4251, section 5).

/// Reads values off the front of a blob. Every method returns `None` if the blob is too short.
pub(super) struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Self {
        Wire(blob)
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        self.string().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Appends a string in wire form.
pub(super) fn put(blob: &mut Vec<u8>, string: &[u8]) {
    // Nothing here is anywhere near 4 GiB.
    blob.extend((string.len() as u32).to_be_bytes());
    blob.extend(string);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_order_and_never_past_the_end() {
        let mut blob = Vec::new();
        put(&mut blob, b"ab");
        blob.extend([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0, 9]);
        let mut wire = Wire::new(&blob);
        assert_eq!((wire.text().as_deref(), wire.u32(), wire.u64()), (Some("ab"), Some(7), Some(256)));
        assert_eq!((wire.u32(), wire.rest()), (None, &[9][..]));
        assert_eq!(Wire::new(&[0, 0, 0, 200, 1]).string(), None);
        assert_eq!(Wire::new(&[]).string(), None);
    }
}
