"""Who may call a route, how callers authenticate, and the statuses of rejected callers."""

from local.openapi import Schema

SCHEMES: Schema = {
    "deviceBearer": {"type": "http", "scheme": "bearer", "description": "the device token from the registration"},
    "deviceToken": {"type": "apiKey", "in": "header", "name": "X-Device-Token", "description": "the same token"},
    "enrollmentKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Admin-Key",
        "description": "an enrollment token, in the header that the agent used for the old server's admin key",
    },
    "enrollmentQr": {"type": "apiKey", "in": "header", "name": "X-Admin", "description": "the same, after a QR scan"},
    "enrollmentBearer": {"type": "http", "scheme": "bearer", "description": "an enrollment token"},
    "enrollmentQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "an enrollment token of scope apk_download: Android's provisioning downloads a plain URL",
    },
    "operator": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "AWS Signature Version 4 for `execute-api`; IAM policies decide who may call which route",
        "x-amazon-apigateway-authtype": "awsSigv4",
    },
}

CALLERS: dict[str, list[dict[str, list[str]]]] = {
    "device": [{"deviceBearer": []}, {"deviceToken": []}],
    "download": [{"deviceBearer": []}, {"deviceToken": []}, {"enrollmentBearer": []}, {"enrollmentQuery": []}],
    "enrollment": [{"enrollmentKey": []}, {"enrollmentQr": []}, {"enrollmentBearer": []}],
    "operator": [{"operator": []}],
    "anyone": [],
}

PROBLEMS: dict[str, set[int]] = {
    "device": {401, 403, 410},
    "download": {401, 403, 410},
    "enrollment": {401, 403},
    "operator": {403},
    "anyone": set(),
}

# Query parameters that are credentials.
QUERY = {"token"}
