/* SPDX-License-Identifier: GPL-2.0-or-later */
/* request.h - the request queue of a virtio-iommu: parse, execute, answer, log. */
#ifndef REQUEST_H
#define REQUEST_H

struct iommu;

/* Answers what is available: one publish, and at most one interrupt, for each batch. */
void request_queue_run(struct iommu *iommu);

#endif /* REQUEST_H */
