/* SPDX-License-Identifier: GPL-2.0-or-later */
/* request.h - the request queue of a virtio-iommu: parse, execute, answer, log. */
#ifndef REQUEST_H
#define REQUEST_H

struct iommu;

/* Answers all requests that are available now: one publish, at most one interrupt. */
void request_queue_run(struct iommu *iommu);

#endif /* REQUEST_H */
