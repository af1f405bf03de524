#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# load-module NAME [PARAM=VALUE]...: load one of the modules that the guest holds and
# did not load at boot, after those that it depends on. Loaded ones are left alone.

export PATH=/bin

# Lines of modules.dep: NAME DEPENDENCY..., in the order to load them in.
depends=none
while read -r name rest; do
	[ "$name" = "$1" ] && depends=$rest && break
done </viotest/modules.dep
if [ "$depends" = none ]; then
	echo "this guest holds no module $1" >&2
	exit 2
fi

wanted=$1
shift
for module in $depends "$wanted"; do
	[ -d "/sys/module/$module" ] && continue
	params=
	while read -r name param; do
		[ "$name" = "$module" ] && params="$params $param"
	done </viotest/module-params
	[ "$module" = "$wanted" ] && params="$params $*"
	# shellcheck disable=SC2086 # one word per parameter
	insmod "/viotest/modules.d/$module.ko" $params || exit 1
done
