// Clients of others on Node, unmodified: MSAL for Node and openid-client.
//
// Arguments: address of the server, tenant, application with a secret, its secret, the program
// `vigie`, a Python interpreter with `requests` for the scripted browser, folder of these scripts.

import * as msal from "@azure/msal-node";
import * as oidc from "openid-client";
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { X509Certificate, createHash, createPrivateKey, webcrypto } from "node:crypto";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [url, tenant, application, secret, program, python, folder] = process.argv.slice(2);
const authority = `${url}/${tenant}`;
const DEFENDER = "https://api.securitycenter.microsoft.com";
const everything = `${DEFENDER}/.default`;
const scope = `${DEFENDER}/Machine.Read`;
const user = "nora@vigietrial.onmicrosoft.com";
const password = "correct horse battery";

/** What the program prints. */
function vigie(...words) {
  const env = { ...process.env, VIGIE_USER_PASSWORD: password };
  return execFileSync(program, words, { env, encoding: "utf8" }).trim();
}

/** The id of a new application. */
function register(...words) {
  return JSON.parse(vigie("app", "create", ...words, "-o", "json").split("\n")[0]).appId;
}

/** A person at a browser; the address elsewhere that it ends at. */
async function browse(address, ...code) {
  const words = [join(folder, "browser.py"), address, user, password, ...code];
  const child = spawn(python, words, { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (text) => (said += text));
  const status = await new Promise((resolve) => child.on("close", resolve));
  assert.equal(status, 0, "the browser failed");
  return said.trim();
}

/** Whether the API lets the token in. */
async function machines(token) {
  const answer = await fetch(`${url}/api/machines`, {
    headers: { Authorization: `Bearer ${token}` },
  });
  assert.equal(answer.status, 200, await answer.text());
}

vigie("user", "create", user, "--role", "Security Reader");
const native = register(
  "Native of Node", "--public-client", "--native-redirect", "http://localhost",
  "--delegated", "Machine.Read",
);
const web = register(
  "Web of Node", "--web-redirect", "https://client.example/cb", "--delegated", "Machine.Read",
);
const webSecret = vigie("app", "add-secret", web);

// A key with a certificate.
const keys = mkdtempSync(join(tmpdir(), "vigie-node-"));
const [keyFile, certificateFile] = [join(keys, "key.pem"), join(keys, "certificate.pem")];
execFileSync("openssl", [
  "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=client", "-days", "30",
  "-keyout", keyFile, "-out", certificateFile,
], { stdio: "ignore" });
const privateKey = readFileSync(keyFile, "utf8");
const certificate = readFileSync(certificateFile, "utf8");
const sha256 = createHash("sha256").update(new X509Certificate(certificate).raw).digest();
vigie("app", "add-certificate", application, certificateFile);

// MSAL: the application by secret, again from its cache, and by certificate.
const options = { authority, knownAuthorities: [new URL(url).host] };
const confidential = (more) =>
  new msal.ConfidentialClientApplication({ auth: { clientId: application, ...options, ...more } });
const bySecret = confidential({ clientSecret: secret });
let token = await bySecret.acquireTokenByClientCredential({ scopes: [everything] });
await machines(token.accessToken);
token = await bySecret.acquireTokenByClientCredential({ scopes: [everything] });
assert.ok(token.fromCache);
for (const more of [{}, { x5c: certificate }]) {
  const clientCertificate = { thumbprintSha256: sha256.toString("hex"), privateKey, ...more };
  const byCertificate = confidential({ clientCertificate });
  token = await byCertificate.acquireTokenByClientCredential({ scopes: [everything] });
  await machines(token.accessToken);
}
await assert.rejects(
  confidential({ clientSecret: "wrong" }).acquireTokenByClientCredential({ scopes: [everything] }),
  (error) => error.errorCode === "invalid_client" && error.errorMessage.includes("7000215"),
);
console.log("MSAL secret, cache, certificate, refusal");

// MSAL: interactive with PKCE and consent on the way, then its cache, then the refresh token.
const pub = new msal.PublicClientApplication({ auth: { clientId: native, ...options } });
token = await pub.acquireTokenInteractive({
  scopes: [scope],
  openBrowser: async (address) => void browse(address),
});
assert.equal(token.account.username, user);
await machines(token.accessToken);
const account = (await pub.getTokenCache().getAllAccounts())[0];
const silent = await pub.acquireTokenSilent({ account, scopes: [scope] });
assert.ok(silent.fromCache);
const fresh = await pub.acquireTokenSilent({ account, scopes: [scope], forceRefresh: true });
assert.ok(!fresh.fromCache && fresh.accessToken !== token.accessToken);
await machines(fresh.accessToken);
console.log("MSAL interactive, cache, refresh");

// MSAL: device code.
token = await pub.acquireTokenByDeviceCode({
  scopes: [scope],
  deviceCodeCallback: (told) => void browse(told.verificationUri, told.userCode),
});
await machines(token.accessToken);
console.log("MSAL device code");

// MSAL: a code at a web application, redeemed with its secret and the verifier.
const site = new msal.ConfidentialClientApplication({
  auth: { clientId: web, clientSecret: webSecret, ...options },
});
const pkce = await new msal.CryptoProvider().generatePkceCodes();
const redirectUri = "https://client.example/cb";
const address = await site.getAuthCodeUrl({
  scopes: [scope], redirectUri, codeChallenge: pkce.challenge, codeChallengeMethod: "S256",
  state: "s t+a&te",
});
const back = new URL(await browse(address));
assert.equal(back.searchParams.get("state"), "s t+a&te");
token = await site.acquireTokenByCode({
  code: back.searchParams.get("code"), scopes: [scope], redirectUri, codeVerifier: pkce.verifier,
});
await machines(token.accessToken);
console.log("MSAL code with PKCE");

// MSAL: user name and password, once the tenant wants it.
vigie("tenant", "settings", "--password-grant", "true");
token = await pub.acquireTokenByUsernamePassword({ scopes: [scope], username: user, password });
await machines(token.accessToken);
console.log("MSAL user name and password");

// openid-client finds everything by discovery, and is strict about what it finds.
const issuer = new URL(`${authority}/v2.0`);
const jwk = await webcrypto.subtle.importKey(
  "pkcs8", createPrivateKey(privateKey).export({ format: "der", type: "pkcs8" }),
  { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, false, ["sign"],
);
const kid = sha256.toString("base64url");
for (const [way, proof] of [
  ["post", oidc.ClientSecretPost(secret)],
  ["basic", oidc.ClientSecretBasic(secret)],
  ["key", oidc.PrivateKeyJwt({ key: jwk, kid })],
]) {
  const client = await oidc.discovery(issuer, application, undefined, proof);
  const found = await oidc.clientCredentialsGrant(client, { scope: everything });
  assert.equal(found.token_type, "bearer", way);
  const answer = await oidc.fetchProtectedResource(
    client, found.access_token, new URL(`${url}/api/machines`), "GET",
  );
  assert.equal(answer.status, 200, way);
}
console.log("openid-client secret by post and basic, private key");

// Code with PKCE, id token, user info, refresh, introspection, revocation.
const client = await oidc.discovery(issuer, web, undefined, oidc.ClientSecretBasic(webSecret));
const verifier = oidc.randomPKCECodeVerifier();
const [state, nonce] = [oidc.randomState(), oidc.randomNonce()];
const asked = oidc.buildAuthorizationUrl(client, {
  redirect_uri: redirectUri, scope: `openid profile offline_access ${scope}`, state, nonce,
  code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
});
const tokens = await oidc.authorizationCodeGrant(client, new URL(await browse(asked.href)), {
  pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true,
});
assert.equal(tokens.claims().preferred_username, user);
await machines(tokens.access_token);
const again = await oidc.refreshTokenGrant(client, tokens.refresh_token);
await machines(again.access_token);
const known = await oidc.tokenIntrospection(client, again.refresh_token);
assert.ok(known.active);
await oidc.tokenRevocation(client, again.refresh_token);
assert.ok(!(await oidc.tokenIntrospection(client, again.refresh_token)).active);
await assert.rejects(oidc.refreshTokenGrant(client, again.refresh_token), { error: "invalid_grant" });
const own = await oidc.refreshTokenGrant(client, tokens.refresh_token, { scope: "openid profile" })
  .catch((error) => error);
assert.equal(own.error, "invalid_grant", "revocation ends the whole family");
console.log("openid-client code with PKCE, refresh, introspection, revocation");

// Device code, and who signed in.
const device = await oidc.discovery(issuer, native, undefined, oidc.None());
const started = await oidc.initiateDeviceAuthorization(device, { scope: "openid profile User.Read" });
const person = browse(started.verification_uri, started.user_code);
const signedIn = await oidc.pollDeviceAuthorizationGrant(device, started);
await person;
const info = await oidc.fetchUserInfo(device, signedIn.access_token, signedIn.claims().sub);
assert.equal(info.preferred_username, user);
console.log("openid-client device code, user info");
