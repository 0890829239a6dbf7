//! Errors of sign-in in Entra's form: an OAuth error with an AADSTS number.

use http::StatusCode;

/// An error of the token endpoint (RFC 6749, section 5.2) with Entra's additions.
#[derive(Clone, Debug, PartialEq)]
pub struct SignInError {
    /// AADSTS number.
    pub number: u32,
    /// OAuth error code.
    pub code: &'static str,
    pub status: StatusCode,
    /// Text behind `AADSTSn: `. Names at most the client's own identifiers.
    pub text: String,
    /// What kind of interaction would help.
    pub suberror: Option<&'static str>,
    /// A claims request (OpenID Connect Core, section 5.5) that would satisfy the policy.
    pub claims: Option<&'static str>,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
}

impl SignInError {
    pub(crate) fn new(
        number: u32,
        code: &'static str,
        status: u16,
        text: impl Into<String>,
    ) -> SignInError {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let text = text.into();
        SignInError { number, code, status, text, suberror: None, claims: None, retry_after: None }
    }

    fn invalid_grant(number: u32, text: impl Into<String>) -> SignInError {
        SignInError::new(number, "invalid_grant", 400, text)
    }

    fn invalid_client(number: u32, text: impl Into<String>) -> SignInError {
        SignInError::new(number, "invalid_client", 401, text)
    }

    fn invalid_request(number: u32, text: impl Into<String>) -> SignInError {
        SignInError::new(number, "invalid_request", 400, text)
    }

    pub fn tenant_not_found(tenant: &str) -> SignInError {
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are \
             signing into the correct cloud. Check with your subscription administrator, this may \
             happen if there are no active subscriptions for the tenant."
        );
        SignInError::invalid_request(90002, text)
    }

    pub fn tenant_not_named() -> SignInError {
        let text = "No tenant-identifying information found in either the request or implied by any \
                    provided credentials.";
        SignInError::invalid_request(50059, text)
    }

    pub fn application_not_found(app_id: &str, tenant: &str) -> SignInError {
        let text = format!(
            "Application with identifier '{app_id}' was not found in the directory '{tenant}'. This \
             can happen if the application has not been installed by the administrator of the \
             tenant or consented to by any user in the tenant. You may have sent your \
             authentication request to the wrong tenant."
        );
        SignInError::new(700016, "unauthorized_client", 400, text)
    }

    pub fn application_disabled(app_id: &str) -> SignInError {
        let text = format!("Application '{app_id}' is disabled.");
        SignInError::new(7000112, "unauthorized_client", 400, text)
    }

    pub fn wrong_secret(app_id: &str) -> SignInError {
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the \
             client secret value, not the client secret ID, for a secret added to app '{app_id}'."
        );
        SignInError::invalid_client(7000215, text)
    }

    pub fn expired_secret(app_id: &str) -> SignInError {
        let text = format!("The provided client secret keys for app '{app_id}' are expired.");
        SignInError::invalid_client(7000222, text)
    }

    /// No credential in the client credentials grant.
    pub fn secret_missing() -> SignInError {
        let text = "'client_assertion', 'client_secret' or 'request' is required for the \
                    'client_credentials' grant type.";
        SignInError::invalid_client(7000216, text)
    }

    /// No credential of a confidential client in another grant, or a public one that may not do so.
    pub fn credential_missing() -> SignInError {
        let text = "The request body must contain the following parameter: 'client_assertion' or \
                    'client_secret'.";
        SignInError::invalid_client(7000218, text)
    }

    pub fn public_client_credential() -> SignInError {
        let text = "Client is public so neither 'client_assertion' nor 'client_secret' should be \
                    presented.";
        SignInError::invalid_client(700025, text)
    }

    pub fn assertion_of_another(app_id: &str) -> SignInError {
        let text = format!(
            "The client assertion's issuer and subject do not match the application '{app_id}'."
        );
        SignInError::invalid_client(700021, text)
    }

    pub fn assertion_time() -> SignInError {
        let text = "Client assertion is not within its valid time range.";
        SignInError::invalid_client(700024, text)
    }

    pub fn assertion_invalid(reason: &str) -> SignInError {
        let text = format!("Client assertion failed validation: {reason}.");
        SignInError::invalid_client(700027, text)
    }

    /// A token of another issuer matches no federated credential.
    pub fn no_federated_credential() -> SignInError {
        let text = "No matching federated identity record found for presented assertion's issuer, \
                    subject and audience.";
        SignInError::invalid_client(700213, text)
    }

    pub fn too_many_requests(retry_after: u64) -> SignInError {
        let text = "Too many failed requests from this address. Try again later.";
        let error = SignInError::new(90055, "temporarily_unavailable", 429, text);
        SignInError { retry_after: Some(retry_after), ..error }
    }

    pub fn parameter_missing(name: &str) -> SignInError {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        SignInError::invalid_request(900144, text)
    }

    /// A parameter that an address needs, in a query.
    pub fn field_missing(name: &str) -> SignInError {
        SignInError::invalid_request(90014, format!("The required field '{name}' is missing."))
    }

    pub fn malformed(text: impl Into<String>) -> SignInError {
        SignInError::invalid_request(9002313, text)
    }

    /// A code or refresh token that was never issued in this form.
    pub fn grant_malformed() -> SignInError {
        SignInError::invalid_grant(9002313, "Invalid request. Request is malformed or invalid.")
    }

    pub fn method_not_allowed(method: &str) -> SignInError {
        let text = format!("The endpoint only accepts POST requests. Received a {method} request.");
        SignInError::new(900561, "invalid_request", 405, text)
    }

    pub fn grant_unsupported(grant: &str) -> SignInError {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        SignInError::new(70003, "unsupported_grant_type", 400, text)
    }

    pub fn resource_not_found(resource: &str, tenant: &str) -> SignInError {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}. \
             This can happen if the application has not been installed by the administrator of the \
             tenant or consented to by any user in the tenant. You might have sent your \
             authentication request to the wrong tenant."
        );
        SignInError::new(500011, "invalid_resource", 400, text)
    }

    pub fn scope_not_default(scope: &str) -> SignInError {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a \
             scope value with /.default suffixed to the resource identifier (application ID URI)."
        );
        SignInError::new(1002012, "invalid_scope", 400, text)
    }

    pub fn scope_invalid(scope: &str) -> SignInError {
        let text = format!(
            "The provided value for the input parameter 'scope' is not valid. The scope {scope} is \
             not valid."
        );
        SignInError::new(70011, "invalid_scope", 400, text)
    }

    pub fn several_resources() -> SignInError {
        let text = "Provided value for the input parameter scope is not valid because it contains \
                    more than one resource.";
        SignInError::invalid_request(28000, text)
    }

    pub fn resource_on_v2() -> SignInError {
        SignInError::invalid_request(901002, "The 'resource' request parameter is not supported.")
    }

    pub fn tenant_independent_password() -> SignInError {
        let text = "The grant type is not supported over the /common or /consumers endpoints. Please \
                    use the /organizations or tenant-specific endpoint.";
        SignInError::invalid_request(9001023, text)
    }

    pub fn wrong_password() -> SignInError {
        let text = "Error validating credentials due to invalid username or password.";
        SignInError::invalid_grant(50126, text)
    }

    pub fn user_missing(tenant: &str) -> SignInError {
        let text = format!("The user account does not exist in the '{tenant}' directory.");
        SignInError::invalid_grant(50034, text)
    }

    pub fn account_locked() -> SignInError {
        let text = "The account is locked, you've tried to sign in too many times with an incorrect \
                    user ID or password.";
        SignInError::invalid_grant(50053, text)
    }

    pub fn password_expired() -> SignInError {
        SignInError::invalid_grant(50055, "The password is expired.")
    }

    pub fn user_disabled() -> SignInError {
        SignInError::invalid_grant(50057, "The user account is disabled.")
    }

    pub fn second_factor_needed() -> SignInError {
        let text = "Due to a configuration change made by your administrator, or because you moved \
                    to a new location, you must use multi-factor authentication to access.";
        let error = SignInError::invalid_grant(50076, text);
        SignInError { suberror: Some("basic_action"), ..error }
    }

    pub fn wrong_second_factor() -> SignInError {
        let text = "Authentication failed during strong authentication request.";
        SignInError::invalid_grant(50074, text)
    }

    pub fn blocked_by_policy() -> SignInError {
        let text = "Access has been blocked by Conditional Access policies. The access policy does \
                    not allow token issuance.";
        let error = SignInError::invalid_grant(53003, text);
        let claims = r#"{"access_token":{"capolids":{"essential":true,"values":["blocked"]}}}"#;
        SignInError { suberror: Some("message_only"), claims: Some(claims), ..error }
    }

    pub fn not_assigned(app_id: &str) -> SignInError {
        let text =
            format!("The signed in user is not assigned to a role for the application '{app_id}'.");
        SignInError::invalid_grant(50105, text)
    }

    pub fn consent_missing(app_id: &str) -> SignInError {
        let text = format!(
            "The user or administrator has not consented to use the application with ID '{app_id}'. \
             Send an interactive authorization request for this user and resource."
        );
        let error = SignInError::invalid_grant(65001, text);
        SignInError { suberror: Some("consent_required"), ..error }
    }

    pub fn consent_declined() -> SignInError {
        SignInError::new(65004, "access_denied", 400, "User declined to consent to access the app.")
    }

    pub fn admin_consent_needed() -> SignInError {
        let text = "Administrator consent is required for the permissions requested by this \
                    application.";
        SignInError::new(90094, "consent_required", 400, text)
    }

    pub fn code_spent() -> SignInError {
        let text = "OAuth2 Authorization code was already redeemed, please retry with a new valid \
                    code or use an existing refresh token.";
        SignInError::invalid_grant(54005, text)
    }

    pub fn grant_expired() -> SignInError {
        let text = "The provided authorization code or refresh token has expired. Send a new \
                    interactive authorization request for this user and resource.";
        SignInError::invalid_grant(70008, text)
    }

    /// The grant belongs to another client, another redirect URI, or was revoked.
    pub fn grant_invalid(reason: &str) -> SignInError {
        let text = format!("The provided grant is invalid: {reason}.");
        SignInError::invalid_grant(70000, text)
    }

    pub fn refresh_token_inactive() -> SignInError {
        let text = "The refresh token has expired due to inactivity.";
        let error = SignInError::invalid_grant(700082, text);
        SignInError { suberror: Some("token_expired"), ..error }
    }

    pub fn browser_refresh_token_expired() -> SignInError {
        let text = "The refresh token was issued to a single page app (SPA), and therefore has a \
                    fixed, limited lifetime, which has ended.";
        SignInError::invalid_grant(700084, text)
    }

    pub fn password_changed() -> SignInError {
        let text = "The provided grant has expired due to it being revoked, a fresh auth token is \
                    needed. The user might have changed or reset their password.";
        let error = SignInError::invalid_grant(50173, text);
        SignInError { suberror: Some("bad_token"), ..error }
    }

    pub fn verifier_mismatch() -> SignInError {
        let text = "The Code_Verifier does not match the code_challenge supplied in the \
                    authorization request.";
        SignInError::invalid_grant(501481, text)
    }

    pub fn challenge_malformed() -> SignInError {
        let text = "Invalid size or characters of the Code_Challenge parameter.";
        SignInError::invalid_request(501491, text)
    }

    pub fn cross_origin(number: u32) -> SignInError {
        let text = match number {
            9002326 => {
                "Cross-origin token redemption is permitted only for the 'Single-Page Application' \
                 client-type."
            }
            _ => {
                "Tokens issued for the 'Single-Page Application' client-type may only be redeemed \
                 via cross-origin requests."
            }
        };
        SignInError::invalid_request(number, text)
    }

    pub fn device_pending() -> SignInError {
        let text = "OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
        SignInError::new(70016, "authorization_pending", 400, text)
    }

    pub fn device_slow_down() -> SignInError {
        let text = "OAuth 2.0 device flow error. Polling is too frequent; wait longer.";
        SignInError::new(70016, "slow_down", 400, text)
    }

    pub fn device_declined() -> SignInError {
        let text = "OAuth 2.0 device flow error. The user declined the request.";
        SignInError::new(70017, "authorization_declined", 400, text)
    }

    pub fn device_code_wrong() -> SignInError {
        let text = "The device code is not valid, or was used already.";
        SignInError::new(70018, "bad_verification_code", 400, text)
    }

    pub fn device_code_expired() -> SignInError {
        let text = "The provided value for the device code is not valid because it has expired.";
        SignInError::new(70020, "expired_token", 400, text)
    }

    pub fn assertion_of_user_invalid() -> SignInError {
        let text = "Assertion failed signature validation, is expired, or names another audience.";
        SignInError::invalid_grant(50013, text)
    }

    pub fn redirect_unknown(app_id: &str) -> SignInError {
        let text = format!(
            "The redirect URI specified in the request does not match the redirect URIs configured \
             for the application '{app_id}'."
        );
        SignInError::invalid_request(50011, text)
    }

    pub fn login_required() -> SignInError {
        let text = "Session information is not sufficient for single-sign-on.";
        SignInError::new(50058, "login_required", 400, text)
    }

    pub fn several_accounts() -> SignInError {
        let text = "Select an account: the session belongs to another user than the request names.";
        SignInError::new(16000, "interaction_required", 400, text)
    }

    pub fn user_of_another_tenant() -> SignInError {
        let text =
            "The user account does not exist in the tenant and cannot access the application.";
        SignInError::new(50020, "access_denied", 400, text)
    }

    pub fn response_type_unsupported() -> SignInError {
        let text = "The provided value for the input parameter 'response_type' is not allowed.";
        SignInError::new(70005, "unsupported_response_type", 400, text)
    }

    pub fn response_type_off(number: u32) -> SignInError {
        let text = match number {
            700051 => "response_type 'token' is not enabled for the application.",
            _ => "response_type 'id_token' is not enabled for the application.",
        };
        SignInError::new(number, "unsupported_response_type", 400, text)
    }

    pub fn response_mode_unsupported() -> SignInError {
        let text = "The provided value for the input parameter 'response_mode' is not allowed.";
        SignInError::invalid_request(70007, text)
    }

    pub fn internal() -> SignInError {
        let text =
            "An unexpected, non-retryable error stemming from the directory service has occurred.";
        SignInError::new(90006, "server_error", 500, text)
    }
}

/// The cause goes to the log, not to the caller.
impl From<crate::DirectoryError> for SignInError {
    fn from(error: crate::DirectoryError) -> SignInError {
        tracing::error!(%error, "sign-in failed");
        SignInError::internal()
    }
}

impl From<vigie_database::DatabaseError> for SignInError {
    fn from(error: vigie_database::DatabaseError) -> SignInError {
        crate::DirectoryError::from(error).into()
    }
}
