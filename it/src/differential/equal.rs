//! Makes equal what may differ between two brokers: ids, wordings, addresses, the order of what has none.

use taccola_base::Uuid;

/// Messages are our own, and beside an error Kafka has one here and none there. Without an error there must be none.
pub(crate) fn message(error_code: i16, text: &mut Option<String>) {
    if error_code != 0 {
        *text = None;
    }
}

/// Documentation is our own: only whether there is some is compared.
pub(crate) fn documentation(text: &mut Option<String>) {
    if let Some(text) = text {
        *text = "(some sentences)".to_owned();
    }
}

/// Whether there is an id, not which.
pub(crate) fn id(id: &mut Uuid) {
    if !id.is_zero() {
        *id = Uuid::METADATA_TOPIC_ID;
    }
}
