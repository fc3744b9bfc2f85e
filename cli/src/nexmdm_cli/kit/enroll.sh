#!/bin/sh
# Sets up a phone connected by cable: installs the agent, makes it device owner, grants its permissions, enrolls it.
# Created by `nexmdm enroll create --script`. It contains secrets: keep it private and delete it afterwards.
# Safe to run twice: each step first checks whether it is done. ANDROID_SERIAL selects one of several phones.
set -eu

# --- values

say() { printf '%s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# adb passes its arguments to the phone's shell, so each is quoted for that shell.
phone() {
  line=''
  for word in "$@"; do
    line="$line '$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'"
  done
  adb shell "$line" </dev/null
}

sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

command -v adb >/dev/null || fail 'adb is missing: install the Android platform tools'
adb get-state >/dev/null 2>&1 ||
  fail 'no phone, or more than one: allow USB debugging on the phone, or name one with ANDROID_SERIAL (adb devices)'

say "1. The agent, $PACKAGE $VERSION_NAME"
if phone dumpsys package "$PACKAGE" | grep -Eq "versionCode=$VERSION_CODE( |$)"; then
  say '   is installed'
else
  if ! [ -f "$APK" ] || [ "$(sha256 "$APK")" != "$SHA256" ]; then
    command -v curl >/dev/null || fail 'curl is missing'
    curl --fail --silent --show-error --location --output "$APK" "$DOWNLOAD_URL" ||
      fail 'the agent could not be downloaded: the link may have expired; create a new script'
  fi
  [ "$(sha256 "$APK")" = "$SHA256" ] || fail "$APK is not the promoted build; delete it and run this script again"
  adb install -r "$APK" </dev/null || fail 'the phone rejected the agent; see its message above'
fi

say '2. Device owner'
if phone dumpsys device_policy | grep -A 5 'Device Owner' | grep -q "$PACKAGE/"; then
  say '   is set'
else
  phone dpm set-device-owner "$ADMIN_COMPONENT" ||
    fail 'the phone refused: remove every account (Settings, Passwords & accounts), or reset it and skip the accounts'
  # On some phones dpm exits with 0 although it failed.
  phone dumpsys device_policy | grep -A 5 'Device Owner' | grep -q "$PACKAGE/" ||
    fail 'the agent did not become device owner: reset the phone to factory settings and skip the accounts'
fi

say '3. Usage access, notifications, and no Doze'
phone appops set "$PACKAGE" GET_USAGE_STATS allow
phone appops set "$PACKAGE" RUN_ANY_IN_BACKGROUND allow
phone dumpsys deviceidle whitelist "+$PACKAGE" >/dev/null
# Permissions that an older Android does not know are skipped.
phone pm grant "$PACKAGE" android.permission.POST_NOTIFICATIONS 2>/dev/null || say '   no permission for notifications before Android 13'
phone cmd notification allow_dnd "$PACKAGE" 2>/dev/null || say '   access to Do Not Disturb could not be granted'
listener=$(phone dumpsys package "$PACKAGE" | grep -o "$PACKAGE/[A-Za-z0-9_.]*NotificationListener[A-Za-z0-9_]*" | head -n 1 || true)
if [ -n "$listener" ]; then
  phone cmd notification allow_listener "$listener" 2>/dev/null || say '   notification access could not be granted'
fi

say '4. Packages to disable'
for disabled in $DISABLE; do
  phone pm disable-user --user 0 "$disabled" >/dev/null 2>&1 || say "   $disabled is not on this phone"
done

say "5. Enroll as $ALIAS"
if [ "$(phone settings get global nexmdm_enrollment_token)" = "$TOKEN_ID" ]; then
  say '   already done with this token; to enroll the phone again, create a new script'
else
  set -- am broadcast -a com.nexmdm.CONFIGURE -n "$RECEIVER" \
    --es server_url "$SERVER_URL" --es admin_key "$ADMIN_KEY" --es alias "$ALIAS"
  if [ -n "$HMAC_PRIMARY_KEY" ]; then set -- "$@" --es hmac_primary_key "$HMAC_PRIMARY_KEY"; fi
  if [ -n "$HMAC_ROTATION_KEY" ]; then set -- "$@" --es hmac_rotation_key "$HMAC_ROTATION_KEY"; fi
  phone "$@" >/dev/null || fail 'the phone did not accept the configuration'
  phone settings put global nexmdm_enrollment_token "$TOKEN_ID"
fi

say "Done. The first heartbeat arrives within seconds: nexmdm devices show '$ALIAS'"
