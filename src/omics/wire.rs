//! What the SDK's defaults do on the wire that we do not want.

use aws_sdk_omics::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeSerializationInterceptorContextMut,
};
use aws_sdk_omics::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_omics::error::BoxError;
use aws_sdk_omics::primitives::SdkBody;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_types::endpoint_config::EndpointUrl;
use http_body_util::Limited;

/// The longest answer that is read, in bytes. A job has at most 100 sources of a few hundred bytes each; what is longer is no
/// answer, and memory is not its to fill.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Uses a configured endpoint verbatim, be it from our file or from AWS's own (`AWS_ENDPOINT_URL`). The SDK would put
/// `control-storage-` before its host, and the name that results seldom exists.
#[derive(Debug)]
pub struct EndpointVerbatim;

#[dyn_dispatch_hint]
impl Intercept for EndpointVerbatim {
    fn name(&self) -> &'static str {
        "EndpointVerbatim"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if cfg.load::<EndpointUrl>().is_some() {
            cfg.interceptor_state().unset::<EndpointPrefix>();
        }
        Ok(())
    }
}

/// Stops reading an answer at [`ANSWER_BYTES_MAX`].
#[derive(Debug)]
pub(super) struct AnswerLimit;

#[dyn_dispatch_hint]
impl Intercept for AnswerLimit {
    fn name(&self) -> &'static str {
        "AnswerLimit"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, ANSWER_BYTES_MAX));
        Ok(())
    }
}
