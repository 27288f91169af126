# Workflows on GitHub act as the release's account with a token that GitHub signs for one run: there is no key to steal.
locals {
  has_github = var.github_repository == "" ? 0 : 1
}

resource "google_iam_workload_identity_pool" "github" {
  count = local.has_github

  workload_identity_pool_id = "melodify-github"
  display_name              = "Melodify: GitHub"
  depends_on                = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  #checkov:skip=CKV_GCP_125: the scanner does not read a condition with a variable in it, and lets it pass with a name in its place; tests/test_infra.py holds it
  count = local.has_github

  workload_identity_pool_id          = google_iam_workload_identity_pool.github[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub"

  attribute_mapping = {
    "google.subject" = "assertion.sub"
  }

  # Of this repository's environment `release`, which GitHub gives to whom its rules let: to no pull request, and to none
  # of the other things that a repository can run.
  attribute_condition = "assertion.sub == 'repo:${var.github_repository}:environment:release'"

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

# Tokens of the release's account for that one subject.
resource "google_service_account_iam_member" "github" {
  count = local.has_github

  service_account_id = google_service_account.this["release"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/${google_iam_workload_identity_pool.github[0].name}/subject/repo:${var.github_repository}:environment:release"
}
