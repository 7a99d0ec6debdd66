//! Access control lists: describe and create. Numbers are the protocol's codes (`AclOperation`, `ResourceType`, ...), so
//! that what a newer broker knows comes through unharmed.

use taccola_net::api::ApiExt;
use taccola_wire::messages::create_acls_request::AclCreation;
use taccola_wire::messages::{CreateAclsRequest, DescribeAclsRequest};

use super::Admin;
use crate::error::{Error, Result};

/// The filter codes that match everything.
const ANY: i8 = 1;

/// One entry on one resource pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclBinding {
    pub resource_type: i8,
    pub resource_name: String,
    /// 3 literal, 4 prefixed.
    pub pattern_type: i8,
    pub principal: String,
    pub host: String,
    pub operation: i8,
    /// 2 deny, 3 allow.
    pub permission: i8,
}

impl Admin {
    /// All of them, sorted. SECURITY_DISABLED from a broker without an authorizer.
    pub async fn describe_acls(&self) -> Result<Vec<AclBinding>> {
        self.client.retrying(|| self.describe_acls_once()).await
    }

    async fn describe_acls_once(&self) -> Result<Vec<AclBinding>> {
        let api = self.client.any().await?;
        let version = api.version::<DescribeAclsRequest>()?;
        let request = DescribeAclsRequest {
            resource_type_filter: ANY,
            resource_name_filter: None,
            pattern_type_filter: ANY,
            principal_filter: None,
            host_filter: None,
            operation: ANY,
            permission_type: ANY,
        };
        let response = self.client.request(&api, &request, version).await?;
        Error::check(response.error_code, "ACLs", response.error_message)?;
        let mut bindings: Vec<_> = response
            .resources
            .into_iter()
            .flat_map(|resource| {
                resource.acls.into_iter().map(move |acl| AclBinding {
                    resource_type: resource.resource_type,
                    resource_name: resource.resource_name.clone(),
                    pattern_type: resource.pattern_type,
                    principal: acl.principal,
                    host: acl.host,
                    operation: acl.operation,
                    permission: acl.permission_type,
                })
            })
            .collect();
        bindings.sort();
        Ok(bindings)
    }

    /// One result per binding, in order. One that exists already is no error.
    pub async fn create_acls(&self, bindings: &[AclBinding]) -> Result<Vec<Result<()>>> {
        self.client.retrying(|| self.create_acls_once(bindings)).await
    }

    async fn create_acls_once(&self, bindings: &[AclBinding]) -> Result<Vec<Result<()>>> {
        let api = self.client.any().await?;
        let version = api.version::<CreateAclsRequest>()?;
        let creation = |acl: &AclBinding| AclCreation {
            resource_type: acl.resource_type,
            resource_name: acl.resource_name.clone(),
            resource_pattern_type: acl.pattern_type,
            principal: acl.principal.clone(),
            host: acl.host.clone(),
            operation: acl.operation,
            permission_type: acl.permission,
        };
        let request = CreateAclsRequest { creations: bindings.iter().map(creation).collect() };
        let response = self.client.request(&api, &request, version).await?;
        let named = bindings.iter().zip(response.results);
        Ok(named
            .map(|(acl, result)| {
                let subject = format!("ACL of {} on {}", acl.principal, acl.resource_name);
                Error::check(result.error_code, subject, result.error_message)
            })
            .collect())
    }
}
