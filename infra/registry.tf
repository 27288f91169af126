locals {
  templates = { kept = 20, days = 90 }
}

# Images, which are pushed and deployed by digest.
resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84: Google's own keys encrypt it: there is nothing secret in an image, and a key of one's own is one more thing to lose
  repository_id = "melodify"
  location      = var.region
  format        = "DOCKER"
  description   = "Images: pipeline components and endpoint (serving/Dockerfile), web application (web/Dockerfile)"

  docker_config {
    immutable_tags = false # the build's cache is a tag that moves; what is deployed is named by digest
  }

  # An image outlives the templates below that name it. Each push is four versions: the index, the image, its attestations
  # and the signature.
  cleanup_policies {
    id     = "keep-the-last"
    action = "KEEP"
    most_recent_versions {
      keep_count = 4 * (local.templates.kept + 5)
    }
  }

  cleanup_policies {
    id     = "keep-releases"
    action = "KEEP"
    condition {
      tag_state    = "TAGGED"
      tag_prefixes = ["v", "live", "sha256-"] # the last release has the tag live; signatures are tags with the digest
    }
  }

  cleanup_policies {
    id     = "delete-the-rest"
    action = "DELETE"
    condition {
      older_than = "${(local.templates.days + 90) * 86400}s"
    }
  }

  depends_on = [google_project_service.this]
}

# Compiled pipelines, as templates.
resource "google_artifact_registry_repository" "pipelines" {
  #checkov:skip=CKV_GCP_84: as above
  repository_id = "melodify-pipelines"
  location      = var.region
  format        = "KFP"
  description   = "Compiled pipelines, with the digests of their images in them"

  cleanup_policies {
    id     = "keep-the-last"
    action = "KEEP"
    most_recent_versions {
      keep_count = local.templates.kept
    }
  }

  cleanup_policies {
    id     = "delete-the-rest"
    action = "DELETE"
    condition {
      older_than = "${local.templates.days * 86400}s"
    }
  }

  depends_on = [google_project_service.this]
}
