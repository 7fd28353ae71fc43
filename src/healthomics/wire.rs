//! What the SDK's defaults do on the wire that we do not want.

use aws_config::SdkConfig;
use aws_runtime::user_agent::{ApiMetadata, AwsUserAgent, UserAgentInterceptor};
use aws_sdk_omics::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeSerializationInterceptorContextMut,
    BeforeTransmitInterceptorContextMut,
};
use aws_sdk_omics::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_omics::error::BoxError;
use aws_sdk_omics::primitives::SdkBody;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::interceptors::{disable_interceptor, dyn_dispatch_hint};
use aws_types::endpoint_config::EndpointUrl;
use aws_types::os_shim_internal::Env;
use axum::http::{HeaderValue, header};
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

/// Says who asks, in the SDK's words. The SDK would find them anew for each request, which takes it a sixth of a poll.
#[derive(Debug)]
pub(super) struct UserAgent(HeaderValue);

impl UserAgent {
    /// `None` where no header can say it, which leaves it to the SDK.
    pub(super) fn of(sdk: &SdkConfig) -> Option<Self> {
        let api = ApiMetadata::new("omics", aws_sdk_omics::meta::PKG_VERSION);
        let mut user_agent = AwsUserAgent::new_from_environment(Env::real(), api);
        if let Some(name) = sdk.app_name() {
            user_agent.set_app_name(name.clone());
        }
        HeaderValue::try_from(user_agent.aws_ua_header()).ok().map(Self)
    }
}

#[dyn_dispatch_hint]
impl Intercept for UserAgent {
    fn name(&self) -> &'static str {
        "UserAgent"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        cfg.interceptor_state().store_put(disable_interceptor::<UserAgentInterceptor>("it is said once"));
        Ok(())
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().append(header::USER_AGENT, self.0.clone());
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
