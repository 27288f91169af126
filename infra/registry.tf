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

  # Of an image that serves nothing any more, ten versions are enough to go back.
  cleanup_policies {
    id     = "keep-the-last-ten"
    action = "KEEP"
    most_recent_versions {
      keep_count = 10
    }
  }

  cleanup_policies {
    id     = "keep-releases"
    action = "KEEP"
    condition {
      tag_state    = "TAGGED"
      tag_prefixes = ["v", "live"] # the last release has the tag live
    }
  }

  cleanup_policies {
    id     = "delete-the-rest"
    action = "DELETE"
    condition {
      older_than = "2592000s" # 30 days
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
    id     = "keep-the-last-twenty"
    action = "KEEP"
    most_recent_versions {
      keep_count = 20
    }
  }

  cleanup_policies {
    id     = "delete-the-rest"
    action = "DELETE"
    condition {
      older_than = "7776000s" # 90 days
    }
  }

  depends_on = [google_project_service.this]
}
