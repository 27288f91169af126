# Everything that Melodify needs in one Google Cloud project. docs/infrastructure.md says how to use it, and that it was
# never applied where it was written.
terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }

  # terraform init -backend-config=bucket=… : a bucket that is there before all others, with versions.
  backend "gcs" {
    prefix = "melodify"
  }
}

provider "google" {
  project               = var.project
  region                = var.region
  billing_project       = var.project
  user_project_override = true # the budget's API asks who pays for the question
  default_labels        = local.labels
}

data "google_project" "this" {
  project_id = var.project
  depends_on = [google_project_service.this]
}

locals {
  labels = { app = "melodify", managed-by = "terraform" }
}
