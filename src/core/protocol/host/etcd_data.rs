//! etcd's data on a host: whether they are still those that were there before.
use serde::{Deserialize, Serialize};

/// etcd's data directory.
pub const ETCD_DATA: &str = "/var/lib/etcd";

/// Exists once etcd has data: the directory above it is created before etcd has decided what it is a member of.
pub const ETCD_WAL: &str = "/var/lib/etcd/member/wal";

/// The record of the data on the host, outside of the data's directory.
pub const DATA_RECORD: &str = "/var/lib/kmctl/etcd-data.json";

/// The label of the data, in their directory: it moves with the disk.
pub const DATA_LABEL: &str = "/var/lib/etcd/kmctl-data-id";

/// What a host records about its etcd data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataRecord {
    /// Random id, also in [`DATA_LABEL`].
    pub id: String,
    /// Whether the directory was on another file system than the rest of the host's state.
    pub mounted: bool,
    /// Whether etcd has started with them and has a vote. From then on, missing data are lost data.
    pub started: bool,
}

/// What was found of etcd's data, for [`state`](EtcdData::state).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdData {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<DataRecord>,
    /// The id in [`DATA_LABEL`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether [`ETCD_DATA`] is a directory, if need be through a symbolic link.
    #[serde(default)]
    pub exists: bool,
    /// Whether [`ETCD_DATA`] is on another file system than the rest of the host's state: a mount point, or a symbolic link
    /// to a directory on another disk.
    #[serde(default)]
    pub mounted: bool,
    /// Whether [`ETCD_WAL`] exists.
    #[serde(default)]
    pub wal: bool,
    /// Whether a run has recorded that it started etcd. Hosts that are older than the record have only this.
    #[serde(default)]
    pub unit_recorded: bool,
}

/// Whether the data are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    /// There were none so far.
    None,
    Present,
    /// They are not there although etcd has used them.
    Lost(Loss),
}

/// How data are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Their disk is not mounted. They may be complete.
    #[error("is not on the disk on which it was")]
    NotMounted,
    /// The directory holds other data.
    #[error("holds the data of another etcd")]
    OtherData,
    #[error("does not exist")]
    NoDirectory,
    #[error("is empty")]
    Empty,
}

impl Loss {
    /// Whether the data may still exist elsewhere, so that nothing may take their place.
    pub fn may_return(self) -> bool {
        match self {
            Loss::NotMounted | Loss::OtherData => true,
            Loss::NoDirectory | Loss::Empty => false,
        }
    }
}

impl EtcdData {
    /// Judges what was found.
    pub fn state(&self) -> DataState {
        let Some(record) = &self.record else {
            return match (self.wal, self.unit_recorded) {
                (true, _) => DataState::Present,
                (false, true) => DataState::Lost(self.absence()),
                (false, false) => DataState::None,
            };
        };
        let labelled = self.label.as_ref() == Some(&record.id);
        match () {
            () if self.wal && labelled => DataState::Present,
            () if self.wal => DataState::Lost(Loss::OtherData),
            () if !record.started => DataState::None,
            () if record.mounted && !self.mounted => DataState::Lost(Loss::NotMounted),
            () => DataState::Lost(self.absence()),
        }
    }

    fn absence(&self) -> Loss {
        if self.exists { Loss::Empty } else { Loss::NoDirectory }
    }

    /// Why etcd must not start. `first` says whether its first start is configured.
    ///
    /// # Errors
    /// What is wrong with the data's directory.
    pub fn may_start(&self, first: bool) -> Result<(), Loss> {
        match (self.state(), &self.record) {
            (DataState::Present, _) => Ok(()),
            (DataState::Lost(loss), _) => Err(loss),
            // The directory of the first start was labelled for it.
            (DataState::None, Some(record)) if first && self.label.as_ref() == Some(&record.id) => Ok(()),
            (DataState::None, None) if first => Ok(()),
            (DataState::None, Some(record)) if record.mounted && !self.mounted => Err(Loss::NotMounted),
            (DataState::None, _) => Err(self.absence()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> EtcdData {
        let record = DataRecord { id: "1".to_owned(), mounted: false, started: true };
        EtcdData {
            record: Some(record),
            label: Some("1".to_owned()),
            exists: true,
            wal: true,
            unit_recorded: true,
            mounted: false,
        }
    }

    #[test]
    fn data_are_present_only_where_their_label_is() {
        assert_eq!(EtcdData::default().state(), DataState::None);
        assert_eq!(started().state(), DataState::Present);
        let other = EtcdData { label: Some("2".to_owned()), ..started() };
        assert_eq!(other.state(), DataState::Lost(Loss::OtherData));
        let gone = EtcdData { label: None, wal: false, exists: false, ..started() };
        assert_eq!(gone.state(), DataState::Lost(Loss::NoDirectory));
        let empty = EtcdData { label: None, wal: false, ..started() };
        assert_eq!(empty.state(), DataState::Lost(Loss::Empty));
        let mut unmounted = empty;
        unmounted.record.as_mut().unwrap().mounted = true;
        assert_eq!(unmounted.state(), DataState::Lost(Loss::NotMounted));
    }

    #[test]
    fn a_first_start_that_did_not_happen_leaves_nothing_to_lose() {
        let mut first = EtcdData { wal: false, unit_recorded: false, ..started() };
        first.record.as_mut().unwrap().started = false;
        assert_eq!(first.state(), DataState::None);
        assert_eq!(first.may_start(true), Ok(()));
        assert_eq!(first.may_start(false), Err(Loss::Empty), "nothing configures a first start");
        first.label = None;
        assert_eq!(first.may_start(true), Err(Loss::Empty), "the directory is not the one that was labelled");
        first.record.as_mut().unwrap().mounted = true;
        assert_eq!(first.may_start(true), Err(Loss::NotMounted));
    }

    #[test]
    fn a_host_of_before_the_record_is_known_by_the_units_record() {
        let old = EtcdData { wal: true, unit_recorded: true, exists: true, ..EtcdData::default() };
        assert_eq!((old.state(), old.may_start(false)), (DataState::Present, Ok(())));
        let lost = EtcdData { wal: false, ..old };
        assert_eq!((lost.state(), lost.may_start(true)), (DataState::Lost(Loss::Empty), Err(Loss::Empty)));
    }
}
