# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest kernels built from source, and their modules built again with a patch.

:mod:`~viotest.provision.kbuild.source` finds the source,
:mod:`~viotest.provision.kbuild.build` makes a kernel of it and keeps, beside what a
guest boots, the part of the tree that :mod:`~viotest.provision.kbuild.rebuild` needs.
"""
