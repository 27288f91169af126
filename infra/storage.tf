# MELODIFY_BUCKET: datasets, models, songs, what pipelines hand on. It lies where the jobs run.
resource "google_storage_bucket" "melodify" {
  #checkov:skip=CKV_GCP_62: who read what is in Cloud Audit Logs, which can be switched on; access logs would be a third bucket
  #checkov:skip=CKV_GCP_78: what is deleted must be gone: visitors are promised that (docs/web.md), and old versions would stay
  name     = "${var.project}-melodify"
  location = var.region

  uniform_bucket_level_access = true       # roles on the bucket, no lists at objects
  public_access_prevention    = "enforced" # browsers get signed links that end
  force_destroy               = false

  soft_delete_policy {
    retention_duration_seconds = 0 # as for versions: deleted is gone
  }

  # Objects carry no label, so `melodify cloud clean` leaves them: age ends them. Not models/: an endpoint loads its weights
  # from there whenever it starts, however old its release; who takes a release away takes them too.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = var.keep_days
      matches_prefix = ["batch/", "datasets/", "nightly/", "pipeline/", "songs/", "web/"]
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  depends_on = [google_project_service.this]
}

# What builds and the nightly run leave: executed notebooks, reports, test results.
resource "google_storage_bucket" "results" {
  #checkov:skip=CKV_GCP_62: as above
  name     = "${var.project}-melodify-results"
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = true # a build's record is not written over
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = 90
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 30
    }
  }

  depends_on = [google_project_service.this]
}
