//! One file per API key, named by the key's number. A handler authorizes, normalizes by version, calls the engine that
//! owns the matter, and builds the response; it holds no state and no lock and touches no file.

pub mod k000_produce;
pub mod k001_fetch;
pub mod k002_list_offsets;
pub mod k003_metadata;
pub mod k008_offset_commit;
pub mod k009_offset_fetch;
pub mod k010_find_coordinator;
pub mod k011_join_group;
pub mod k012_heartbeat;
pub mod k013_leave_group;
pub mod k014_sync_group;
pub mod k015_describe_groups;
pub mod k016_list_groups;
pub mod k018_api_versions;
pub mod k019_create_topics;
pub mod k020_delete_topics;
pub mod k021_delete_records;
pub mod k022_init_producer_id;
pub mod k023_offset_for_leader_epoch;
pub mod k032_describe_configs;
pub mod k033_alter_configs;
pub mod k035_describe_log_dirs;
pub mod k037_create_partitions;
pub mod k042_delete_groups;
pub mod k044_incremental_alter_configs;
pub mod k047_offset_delete;
pub mod k060_describe_cluster;
pub mod k061_describe_producers;
pub mod k074_list_config_resources;
pub mod k075_describe_topic_partitions;
pub mod k083_initialize_share_group_state;
pub mod k084_read_share_group_state;
pub mod k085_write_share_group_state;
pub mod k086_delete_share_group_state;
pub mod k087_read_share_group_state_summary;
