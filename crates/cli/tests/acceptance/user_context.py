"""Clients of others in user context, unmodified: MSAL for Python, azure-identity, Authlib.

Arguments: address of the server, tenant, application with a secret, its secret, the program `vigie`.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import msal
import requests
from authlib.integrations.requests_client import OAuth2Session
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    DeviceCodeCredential,
    InteractiveBrowserCredential,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

url, tenant, application, secret, program = sys.argv[1:]
authority = f"{url}/{tenant}"
ca = os.environ["REQUESTS_CA_BUNDLE"]
folder = pathlib.Path(tempfile.mkdtemp())
here = pathlib.Path(__file__).parent
domain = "vigietrial.onmicrosoft.com"
user, password = f"mira@{domain}", "correct horse battery"
DEFENDER = "https://api.securitycenter.microsoft.com"
scopes = [f"{DEFENDER}/Machine.Read"]


def vigie(*arguments, **environment):
    """One line of JSON for each thing that the program shows."""
    done = subprocess.run(
        [program, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, (arguments, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def machines(token):
    answer = requests.get(
        f"{url}/api/machines", headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert answer.status_code == 200, (answer.status_code, answer.text)


def browse(address, *more):
    subprocess.run(
        [sys.executable, here / "browser.py", address, user, password, *more], check=True
    )


vigie("user", "create", user, "--role", "Security Reader", VIGIE_USER_PASSWORD=password)
native = vigie(
    "app", "create", "Native", "--public-client", "--native-redirect", "http://localhost",
    "--delegated", "Machine.Read", "-o", "json",
)[0]["appId"]
os.environ["BROWSER"] = f"{sys.executable} {here}/browser.py %s {user} 'correct horse battery' &"


def public_client():
    """A new one remembers no earlier refusal, which MSAL repeats for a minute by itself."""
    return msal.PublicClientApplication(native, authority=authority, instance_discovery=False)


# MSAL: interactive, with consent on the way; then silently from its cache and by refresh token.
public = public_client()
token = public.acquire_token_interactive(scopes, timeout=60)
assert "access_token" in token, token
assert token["id_token_claims"]["preferred_username"] == user, token
machines(token["access_token"])
account = public.get_accounts()[0]
assert account["username"] == user, account
assert public.acquire_token_silent(scopes, account)["token_source"] == "cache"
again = public.acquire_token_silent(scopes, account, force_refresh=True)
assert again["token_source"] == "identity_provider", again
machines(again["access_token"])
print("MSAL interactive, silent, refresh")

# MSAL: device code.
flow = public.initiate_device_flow(scopes)
assert "user_code" in flow, flow
browse(flow["verification_uri"], flow["user_code"])
token = public.acquire_token_by_device_flow(flow)
assert "access_token" in token, token
machines(token["access_token"])
print("MSAL device code")

# MSAL: user name and password, off and on.
refused = public_client().acquire_token_by_username_password(user, password, scopes)
assert refused.get("error") == "unsupported_grant_type", refused
vigie("tenant", "settings", "--password-grant", "true")
token = public_client().acquire_token_by_username_password(user, password, scopes)
assert "access_token" in token, token
machines(token["access_token"])
wrong = public_client().acquire_token_by_username_password(user, "wrong password", scopes)
assert 50126 in wrong["error_codes"], wrong
print("MSAL user name and password")

# A certificate in place of a secret.
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
now = datetime.datetime.now(datetime.timezone.utc)
certificate = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(key.public_key())
    .serial_number(1)
    .not_valid_before(now - datetime.timedelta(days=1))
    .not_valid_after(now + datetime.timedelta(days=30))
    .sign(key, hashes.SHA256())
)
public_pem = certificate.public_bytes(serialization.Encoding.PEM)
private_pem = key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
(folder / "public.pem").write_bytes(public_pem)
(folder / "both.pem").write_bytes(private_pem + public_pem)
added = vigie("app", "add-certificate", application, str(folder / "public.pem"), "-o", "json")[0]
for credential in (
    {"private_key": private_pem.decode(), "thumbprint": added["thumbprint"]},
    {"private_key": private_pem.decode(), "public_certificate": public_pem.decode()},
):
    client = msal.ConfidentialClientApplication(
        application, authority=authority, client_credential=credential, instance_discovery=False
    )
    token = client.acquire_token_for_client([f"{DEFENDER}/.default"])
    assert "access_token" in token, token
    machines(token["access_token"])
print("MSAL certificate")

# azure-identity: each of its ways.
common = {"authority": url, "disable_instance_discovery": True, "connection_verify": ca}
default = f"{DEFENDER}/.default"
machines(ClientSecretCredential(tenant, application, secret, **common).get_token(default).token)
path = str(folder / "both.pem")
machines(CertificateCredential(tenant, application, path, **common).get_token(default).token)
device = DeviceCodeCredential(
    native,
    tenant_id=tenant,
    prompt_callback=lambda uri, code, _: browse(uri, code),
    **common,
)
machines(device.get_token(*scopes).token)
interactive = InteractiveBrowserCredential(tenant_id=tenant, client_id=native, **common)
machines(interactive.get_token(*scopes).token)
print("azure-identity secret, certificate, device code, interactive")

# Authlib: both forms of client authentication, and a code with PKCE at a web application.
web = vigie(
    "app", "create", "Web", "--web-redirect", "https://client.example/cb",
    "--delegated", "Machine.Read", "-o", "json",
)[0]["appId"]
web_secret = subprocess.run(
    [program, "app", "add-secret", web], capture_output=True, text=True, check=True
).stdout.strip()
token_endpoint = f"{authority}/oauth2/v2.0/token"
for method in ("client_secret_post", "client_secret_basic"):
    client = OAuth2Session(application, secret, token_endpoint_auth_method=method, scope=default)
    token = client.fetch_token(token_endpoint, grant_type="client_credentials")
    machines(token["access_token"])
client = OAuth2Session(
    web,
    web_secret,
    scope=f"openid profile offline_access {scopes[0]}",
    redirect_uri="https://client.example/cb",
    code_challenge_method="S256",
)
verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
address, state = client.create_authorization_url(
    f"{authority}/oauth2/v2.0/authorize", code_verifier=verifier
)
# The client's own site is not there: the answer is read off the redirect.
back = subprocess.run(
    [sys.executable, here / "browser.py", address, user, password],
    capture_output=True,
    text=True,
    check=True,
).stdout.strip()
token = client.fetch_token(
    token_endpoint,
    authorization_response=back,
    code_verifier=verifier,
    state=state,
)
machines(token["access_token"])
token = client.refresh_token(token_endpoint, refresh_token=token["refresh_token"])
machines(token["access_token"])
print("Authlib post, basic, code with PKCE, refresh")
