#!/bin/sh
# Create the signed sample APKs of this folder. Needs Debian's aapt, apksigner and zipalign, and openssl:
#   apt-get install aapt apksigner zipalign openssl
# Each run creates new keys, so every file changes together with fingerprints.json. `make test` only reads the results.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# A framework with the seven attributes that the manifests use, and Android's ids for them. aapt2 requires a framework,
# and Android's own is 20 MB.
mkdir -p res/values
cat > res/values/attributes.xml <<'XML'
<resources>
  <public type="attr" name="debuggable" id="0x0101000f"/> <attr name="debuggable" format="boolean"/>
  <public type="attr" name="name" id="0x01010003"/> <attr name="name" format="string"/>
  <public type="attr" name="minSdkVersion" id="0x0101020c"/> <attr name="minSdkVersion" format="integer|string"/>
  <public type="attr" name="versionCode" id="0x0101021b"/> <attr name="versionCode" format="integer"/>
  <public type="attr" name="versionName" id="0x0101021c"/> <attr name="versionName" format="string"/>
  <public type="attr" name="targetSdkVersion" id="0x01010270"/> <attr name="targetSdkVersion" format="integer|string"/>
  <public type="attr" name="versionCodeMajor" id="0x01010576"/> <attr name="versionCodeMajor" format="integer"/>
</resources>
XML
echo '<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="android"/>' > framework.xml
aapt2 compile --dir res -o framework.zip
aapt2 link --manifest framework.xml -o framework.apk framework.zip

# unsigned NAME PACKAGE CODE VERSION DEBUGGABLE [more attributes of <manifest>]
unsigned() {
  cat > "$1.xml" <<XML
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="$2"
    android:versionCode="$3" android:versionName="$4" ${6:-}>
  <uses-sdk android:minSdkVersion="24" android:targetSdkVersion="33"/>
  <application $5/>
</manifest>
XML
  aapt2 link --manifest "$1.xml" -I framework.apk -o "$1.raw.apk"
  mkdir -p assets
  head -c 3000 /dev/zero | openssl enc -aes-128-ctr -K 00000000000000000000000000000001 -iv 00000000000000000000000000000000 > assets/noise.bin
  aapt add "$1.raw.apk" assets/noise.bin > /dev/null
  zipalign -f 4 "$1.raw.apk" "$1.unsigned.apk"
}

# key NAME OPENSSL-ALGORITHM...
key() {
  name=$1; shift
  openssl req -x509 -nodes -days 36500 -subj "/CN=NexMDM sample $name" -newkey "$@" -keyout "$name.pem" -out "$name.crt" 2> /dev/null
  openssl pkcs8 -topk8 -nocrypt -outform DER -in "$name.pem" -out "$name.pk8"
}

# signed NAME UNSIGNED KEY [options of apksigner]
signed() {
  name=$1; from=$2; key=$3; shift 3
  apksigner sign --key "$key.pk8" --cert "$key.crt" "$@" --out "$here/$name.apk" "$from.unsigned.apk"
  rm -f "$here/$name.apk.idsig"
}

V1="--v1-signing-enabled true --v2-signing-enabled false --v3-signing-enabled false"
V2="--v1-signing-enabled false --v2-signing-enabled true --v3-signing-enabled false"
V3="--v1-signing-enabled false --v2-signing-enabled false --v3-signing-enabled true --min-sdk-version 28"
BOTH="--v1-signing-enabled false --v2-signing-enabled true --v3-signing-enabled true"

key rsa rsa:2048
key rsa4096 rsa:4096
key ec ec -pkeyopt ec_paramgen_curve:P-256
key other rsa:2048

unsigned agent-1 com.nexmdm 1 1.0 ''
unsigned agent-2 com.nexmdm 2 2.0 ''
unsigned agent-3 com.nexmdm 3 3.0 ''
unsigned debug com.nexmdm 2 2.0-debug 'android:debuggable="true"'
unsigned player io.unitynodes.unityapp 190 1.9.0 ''
unsigned major com.nexmdm 4 4.0 '' 'android:versionCodeMajor="1"'

for n in 1 2 3; do signed agent-$n agent-$n rsa $BOTH; done
signed agent-2-debug debug rsa $BOTH
signed agent-2-other-key agent-2 other $BOTH
signed agent-2-v1 agent-2 rsa $V1 --min-sdk-version 21
signed agent-2-v2 agent-2 rsa $V2
signed agent-2-v3 agent-2 rsa $V3
signed agent-2-ec agent-2 ec $BOTH
signed agent-2-rsa4096 agent-2 rsa4096 $BOTH
signed agent-2-verity agent-2 rsa $BOTH --verity-enabled true
signed agent-2-all agent-2 rsa --v1-signing-enabled true --v2-signing-enabled true --v3-signing-enabled true --min-sdk-version 21
signed agent-4-major major rsa $BOTH
signed player-190 player rsa $BOTH
apksigner sign $V2 --key rsa.pk8 --cert rsa.crt --next-signer --key other.pk8 --cert other.crt \
  --out "$here/agent-2-two-signers.apk" agent-2.unsigned.apk
apksigner rotate --out lineage --old-signer --key rsa.pk8 --cert rsa.crt --new-signer --key other.pk8 --cert other.crt
apksigner sign $BOTH --lineage lineage --key rsa.pk8 --cert rsa.crt --next-signer --key other.pk8 --cert other.crt \
  --out "$here/agent-2-rotated.apk" agent-2.unsigned.apk
rm -f "$here"/*.idsig

fingerprint() { openssl x509 -in "$1.crt" -outform DER | sha256sum | cut -d' ' -f1; }
for name in rsa rsa4096 ec other; do printf '"%s": "%s"\n' "$name" "$(fingerprint $name)"; done |
  paste -sd, | sed 's/^/{/; s/$/}/; s/,/, /g' > "$here/fingerprints.json"
