#!/usr/bin/env bash
# Puts a Chromium without a window at the path given: the machine's own, or Debian's package with the libraries that it
# needs and a font, unpacked without root. Where neither is to be had this says so and succeeds.
name=Chromium
source "$(dirname "$0")/debian.sh"

# Loading a page shows more than the version does: data files are opened only then.
starts() {
  timeout 60 "$1" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom about:blank 2>/dev/null |
    grep -q '<html>'
}

for own in chromium-headless-shell chromium chromium-browser google-chrome; do
  # Ubuntu's is a script that says to install another one.
  if own=$(command -v "$own") && starts "$own"; then
    wrap chromium "$own"
    exit 0
  fi
done

unpack fonts-dejavu-core chromium-common chromium-headless-shell
cat >fonts.conf <<XML
<?xml version="1.0"?>
<fontconfig><dir>$root/usr/share/fonts</dir><cachedir>$folder/fonts</cachedir></fontconfig>
XML
wrap chromium "$root"/usr/lib/chromium/chromium-headless-shell FONTCONFIG_FILE="$folder/fonts.conf"
starts ./chromium || give_up "Debian's package does not start"
