# Those in capitals are settings of the library, by their own names (docs/infrastructure.md has the line that sets them).
output "MELODIFY_PROJECT" {
  description = "The project."
  value       = var.project
}

output "MELODIFY_LOCATION" {
  description = "The region."
  value       = var.region
}

output "MELODIFY_BUCKET" {
  description = "The bucket, without gs://."
  value       = google_storage_bucket.melodify.name
}

output "MELODIFY_SERVICE_ACCOUNT" {
  description = "What jobs act as; an endpoint's is in `accounts`."
  value       = google_service_account.this["pipeline"].email
}

output "MELODIFY_IMAGE" {
  description = "Image of components and endpoint."
  value       = var.image
}

output "MELODIFY_OPENAI_SECRET" {
  description = "Where machines find OpenAI's key; its value is put in by hand."
  value       = local.openai_secret
}

output "signing_key" {
  description = "SIGNING_KEY of .ci/verify and .ci/images."
  value       = "gcpkms://${google_kms_crypto_key.images.id}"
}

output "accounts" {
  description = "E-mail of each account."
  value       = { for name, account in google_service_account.this : name => account.email }
}

output "registry" {
  description = "What images' names begin with."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "pipelines" {
  description = "Where compiled pipelines are uploaded."
  value       = "https://${var.region}-kfp.pkg.dev/${var.project}/${google_artifact_registry_repository.pipelines.repository_id}"
}

output "results" {
  description = "Bucket of executed notebooks and reports."
  value       = google_storage_bucket.results.name
}

output "web" {
  description = "Address of the web application."
  value       = "https://${local.web_host}"
}

output "database_address" {
  description = "For the secret web-database-url."
  value       = google_sql_database_instance.web.private_ip_address
}

output "github_provider" {
  description = "For google-github-actions/auth: workload_identity_provider; its service_account is accounts.release."
  value       = one(google_iam_workload_identity_pool_provider.github[*].name)
}
